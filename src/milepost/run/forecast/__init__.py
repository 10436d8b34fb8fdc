"""Forecasts of a run: when it will end, and whether it has stalled."""
