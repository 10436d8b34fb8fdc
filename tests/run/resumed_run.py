"""The run of the next attempt, made from what the run before has reported."""

from __future__ import annotations

from milepost.core.job import Job
from milepost.testing import FakeRun


def resumed(run: FakeRun) -> FakeRun:
    """Return the run of the next attempt, after the report of this one."""
    report = run._report()
    record = {"type": "test", "status": "running", "created": "0", "attempt": "2", **report}
    return FakeRun(Job.stored("fake", record))
