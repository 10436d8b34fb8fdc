"""The benchmarks run, at tiny sizes."""
