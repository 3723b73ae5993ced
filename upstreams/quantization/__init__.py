"""Which modules of an encoder a 1-bit twin binarizes, and how."""
