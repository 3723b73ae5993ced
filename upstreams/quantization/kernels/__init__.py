"""Kernels that compute with bits: exact integer sums of ±1 and 0/1 levels on a CPU."""
