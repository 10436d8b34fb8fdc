"""What job code holds: Run, its stages, the tracked loop, checkpoints; and the pulse that carries what they say."""
