"""The attempts of a job keep their worker, their times and the release of the code."""

from __future__ import annotations

import pytest

from milepost import InMemoryJobManager, Jobs, Retry, Run, Settings, __version__
from milepost.worker.handlers import code_release
from tests.waiting import PATIENCE


def test_attempts_keep_worker_times_and_release() -> None:
    """Regression: the machine and release of earlier attempts were unknown."""
    jobs = Jobs("memory://", options=Settings(release="2026.11.1"))

    @jobs.job("twice", max_attempts=2)
    def twice(run: Run) -> str:
        if run.attempt == 1:
            raise Retry(0.0)
        return "done"

    with jobs.run_workers():
        job = jobs.wait(jobs.submit("twice").job_id, timeout=PATIENCE)
    first, second = job.attempts
    assert (first.attempt, second.attempt) == (1, 2)
    assert (first.release, second.release) == ("2026.11.1", "2026.11.1")
    assert first.worker == second.worker == job.worker
    assert first.started_at is not None
    assert first.ended_at is not None
    assert second.started_at is not None
    assert first.started_at <= first.ended_at <= second.started_at == job.started_at
    assert second.ended_at == job.completed_at


def test_track_keeps_release_and_earlier_attempts() -> None:
    manager = InMemoryJobManager(options=Settings(release="1.0"))
    with pytest.raises(RuntimeError), manager.track("t", unique_key="k"):
        raise RuntimeError
    with manager.track("t", unique_key="k") as run:
        job_id = run.job_id
    job = manager.get_job(job_id)
    assert job is not None
    assert [(one.attempt, one.release, one.ended_at is None) for one in job.attempts] == [
        (1, "1.0", False),
        (2, "1.0", False),
    ]
    assert job.attempts[0].started_at != job.attempts[1].started_at


def test_release_defaults_to_distribution_of_handlers() -> None:
    jobs = Jobs("memory://")

    @jobs.job("ours")
    def ours(run: Run) -> None: ...

    assert code_release(Settings(), jobs.handlers) is None
    ours.function.__module__ = "milepost.handlers"
    assert code_release(Settings(), jobs.handlers) == __version__
    assert code_release(Settings(release="7"), jobs.handlers) == "7"
