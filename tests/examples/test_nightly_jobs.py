"""The nightly example, tested with `milepost.testing`: the clock moves its schedule, its sleep and its retry."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

from milepost import Jobs
from milepost.testing import FrozenClock, JobsUnderTest, jobs_under_test
from tests.examples.example_module import load_example

EVENING, TICK = datetime(2026, 11, 26, 20, tzinfo=UTC), datetime(2026, 11, 27, 2, tzinfo=UTC)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("REPORTS", str(tmp_path / "reports"))
    return load_example("nightly_schedule")


@pytest.fixture
def jobs(example: ModuleType) -> Iterator[JobsUnderTest]:
    clock = FrozenClock()
    clock.move_to(EVENING)
    with jobs_under_test(example.jobs, clock) as jobs:
        yield jobs


def test_report_is_due_at_three_waits_and_is_retried(example: ModuleType, jobs: JobsUnderTest, tmp_path: Path) -> None:
    assert jobs.drain() == []
    jobs.clock.move_to(TICK)
    (asleep,) = jobs.drain()
    assert (asleep.status, asleep.schedule, asleep.scheduled_at) == ("pending", "nightly-report", TICK)
    assert jobs.assert_submitted(example.report, name="sales").job_id == asleep.job_id
    jobs.clock.advance("29m")
    assert jobs.drain() == [], "it waits for late entries"
    (tmp_path / "reports").write_text("a file in place of the folder")
    jobs.clock.advance("1m")
    (retried,) = jobs.drain()
    assert (retried.status, retried.attempt, retried.error) == (
        "pending",
        1,
        f"[Errno 17] File exists: '{tmp_path}/reports'",
    )
    (tmp_path / "reports").unlink()
    assert retried.not_before is not None
    jobs.clock.move_to(retried.not_before)
    (done,) = jobs.drain()
    path = tmp_path / "reports" / "sales-20261127T020000Z.txt"
    assert (done.status, done.attempt, done.result, path.exists()) == ("completed", 2, str(path), True)


def test_ticks_of_days_are_jobs_that_end(example: ModuleType, jobs: JobsUnderTest) -> None:
    jobs.clock.move_to(TICK)
    ended = []
    for _ in range(4):
        jobs.drain()
        jobs.clock.advance("30m")
        ended += jobs.drain()
        jobs.clock.advance("23h30m")
    assert [job.scheduled_at.day for job in ended if job.scheduled_at] == [27, 28, 29, 30]
    assert {job.status for job in ended} == {"completed"}


def test_application_has_its_schedules_again(example: ModuleType, jobs: JobsUnderTest) -> None:
    own: Jobs = example.jobs
    assert [one.name for one in own.list_schedules()] == ["nightly-report"]
    assert [one.next_at for one in own.list_schedules()] == [TICK]
