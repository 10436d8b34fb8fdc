"""What job code holds: the run, its stages and loops, and what reports a run to the store."""
