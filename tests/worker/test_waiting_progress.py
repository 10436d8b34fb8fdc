"""The progress of a job between two runs: that from which the next one continues."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from milepost import Job, Jobs, Run
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timing


def get(jobs: Jobs, job_id: str) -> Job:
    """Return a job."""
    job = jobs.get_job(job_id)
    assert job is not None
    return job


def resumable(run: Run) -> Any:
    return run.each(range(10), resume=True)


def plain_inside(run: Run) -> Any:
    for item in run.each(range(10), resume=True):
        for _ in run.each(range(3), stage="Parts"):
            run.check()
        yield item


def plain(run: Run) -> Any:
    return run.each(range(10))


def resumable_inside(run: Run) -> Any:
    for item in run.each(range(10)):
        for _ in run.each(range(3), stage="Parts", resume=True):
            run.check()
        yield item


LOOPS = pytest.mark.parametrize(
    ("loop", "continues"),
    [(resumable, True), (plain_inside, True), (plain, False), (resumable_inside, False)],
)


@LOOPS
@pytest.mark.parametrize("end", ["given back", "failed", "retried"])
def test_progress_of_a_waiting_job(jobs: Jobs, loop: Any, continues: bool, end: str) -> None:
    """Regression: it was 0 although the loop continued where it was."""
    half = threading.Event()

    @jobs.job("rows", max_attempts=1 if end == "retried" else 2, backoff=lambda attempt: 3600)
    def rows(run: Run) -> None:
        for item in loop(run):
            if item == 5:
                half.set()
                if end != "given back":
                    raise ValueError("no")
                until(lambda: run.cancelled)
                run.check()

    jobs.worker()  # so that in memory none starts by itself
    with jobs.run_workers():
        job_id = jobs.submit(rows).job_id
        assert half.wait(PATIENCE)
        if end == "failed":
            until(lambda: get(jobs, job_id).status == "pending")
        elif end == "retried":
            assert jobs.wait(job_id, PATIENCE).progress >= 0.5
    if end == "retried":
        jobs.retry_job(job_id)
    job = get(jobs, job_id)
    assert job.status == "pending"
    assert job.progress == (pytest.approx(0.5, abs=0.05) if continues else 0)
    if end == "retried":
        jobs.cancel_job(job_id)
        assert jobs.retry_job(job_id, from_start=True).progress == 0
