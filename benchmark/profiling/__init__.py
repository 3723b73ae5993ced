"""Table 1: storage, operations and time of every encoder, the paper's way and the honest way."""
