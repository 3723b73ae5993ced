"""Benchmark scripts: ``python -m superbit.benchmark.bench.sweep`` and its neighbours."""
