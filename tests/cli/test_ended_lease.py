"""A running job whose worker is gone, where no process recovers it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from milepost.cli.ended_lease import with_ended_lease
from milepost.cli.rendering.tables import plain_lines
from milepost.core.job import Job
from milepost.core.serialization import to_micros

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
GONE = "Lease ended 3 h ago and no process has recovered the job; start a worker or a server"


def held(ago: timedelta, status: str = "running") -> Job:
    """Return a job whose lease has ended some time ago."""
    times = {"created": to_micros(NOW - timedelta(days=1), "at"), "lease": to_micros(NOW - ago, "at")}
    return Job.stored("one", {"status": status, "type": "load", **{name: str(at) for name, at in times.items()}})


def test_list_says_that_lease_has_ended() -> None:
    """Regression: the job of a dead worker was shown as running for ever."""
    shown = with_ended_lease(held(timedelta(hours=3)), NOW)
    assert (shown.activity, shown.status, shown.to_dict()["activity"]) == (GONE, "running", GONE)
    assert GONE in plain_lines([shown], utc=True)[1]


@pytest.mark.parametrize(("ago", "status"), [(-20, "running"), (20, "running"), (7200, "completed")])
def test_job_with_recent_or_no_lease_is_shown_as_it_is(ago: int, status: str) -> None:
    job = held(timedelta(seconds=ago), status)
    assert with_ended_lease(job, NOW) is job
