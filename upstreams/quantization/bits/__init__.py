"""A twin computed by bits, to the bit what its simulation in floats computes."""
