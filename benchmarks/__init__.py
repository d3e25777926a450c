"""Benchmarks: Seawall beside its peers in one process run, reported as ratios; see ``python -m benchmarks --help``."""
