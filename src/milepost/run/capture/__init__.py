"""Capture of tqdm bars, log records and standard output as part of a run."""
