"""Benchmarks: each prints ratios, measured interleaved in one run."""
