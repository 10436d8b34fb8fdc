"""Jobs that snooze again and again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from milepost import Job, Jobs, Run, Snooze
from tests.waiting import until

pytestmark = pytest.mark.timing


def get(jobs: Jobs, job_id: str) -> Job:
    """Return a job."""
    job = jobs.get_job(job_id)
    assert job is not None
    return job


def test_job_that_snoozes_in_a_tight_loop_pauses_longer_and_longer(jobs: Jobs) -> None:
    @jobs.job
    def polls(run: Run) -> None:
        raise Snooze(0)

    job_id = jobs.submit(polls).job_id
    pauses: list[timedelta] = []

    def pauses_now() -> bool:
        job = get(jobs, job_id)
        ended = job.attempts[-1].ended_at if job.status == "pending" and job.attempts else None
        if ended is None or job.not_before is None or job.not_before == ended:
            return False
        assert (job.not_before - ended).total_seconds() == 2 ** (len(job.attempts) - 11)
        pauses.append(job.not_before - ended)
        return pauses[-1].total_seconds() >= 2

    with jobs.run_workers():
        until(pauses_now, 20)
    assert get(jobs, job_id).attempt <= 1


def test_snooze_after_a_new_step_has_no_pause(jobs: Jobs) -> None:
    starts: list[int] = []

    @jobs.job
    def polls(run: Run) -> int:
        starts.append(run.attempt)
        run.step(f"page {len(starts)}", len, starts)
        if len(starts) < 17:
            raise Snooze(0)
        return len(starts)

    with jobs.run_workers():
        assert jobs.wait(jobs.submit(polls).job_id, 30).result == 17  # pauses would be 63 s
