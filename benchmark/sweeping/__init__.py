"""Many runs: planned first, then carried out."""
