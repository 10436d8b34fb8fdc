"""Fakes for the tests of applications, and the conformance suite for stores (which needs pytest and Hypothesis)."""

import sys

from milepost.testing.fakes import FakeRun, FrozenClock, fake_run

if "pytest" in sys.modules:  # assertion rewriting must be registered before the import
    sys.modules["pytest"].register_assert_rewrite("milepost.testing.conformance")

__all__ = ["FakeRun", "FrozenClock", "fake_run"]
