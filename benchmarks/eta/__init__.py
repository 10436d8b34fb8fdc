"""Accuracy of the ETA: recorded runs, replayed through the code that a heartbeat calls."""
