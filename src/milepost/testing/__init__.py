"""Fakes for tests, and the conformance suite for those who write a store. `conformance` needs pytest and Hypothesis."""

import sys

from milepost.testing.clock import FrozenClock
from milepost.testing.runs import FakeRun, fake_run

if "pytest" in sys.modules:  # it must know the modules whose asserts it is to explain before they are imported
    sys.modules["pytest"].register_assert_rewrite("milepost.testing.conformance")

__all__ = ["FakeRun", "FrozenClock", "fake_run"]
