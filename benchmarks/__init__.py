"""Benchmarks: Medley beside the raw libraries it uses, in one run."""
