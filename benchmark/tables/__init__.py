"""Table 2 and comparisons, as pure functions of records."""
