"""Benchmarks of milepost beside its peers and beside the least that any client can spend."""
