"""The benchmarks still run: at a size that shows nothing but that."""
