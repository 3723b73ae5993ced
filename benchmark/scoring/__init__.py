"""From what a head put out to SUPERB's numbers: pure functions, one module a kind of metric.

Every module gives the metric, one item a test item (or trial, or query) for the sidecar, and what
a bootstrap needs. What is scored, and on which split, is decided elsewhere.
"""
