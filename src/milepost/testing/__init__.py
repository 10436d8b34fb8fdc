"""Fakes for tests, and the conformance suite for those who write a store. `conformance` needs pytest and Hypothesis."""

from milepost.testing.clock import FrozenClock

__all__ = ["FrozenClock"]
