"""Jobs that snooze again and again."""

from __future__ import annotations

import pytest

from milepost import Job, Jobs, Run, Snooze
from milepost.testing import jobs_under_test

pytestmark = pytest.mark.timing


def get(jobs: Jobs, job_id: str) -> Job:
    """Return a job."""
    job = jobs.get_job(job_id)
    assert job is not None
    return job


def pause_of(job: Job) -> float:
    """Return the seconds between the last run of a pending job and its next one."""
    ended = job.attempts[-1].ended_at
    assert ended is not None
    assert job.not_before is not None
    return (job.not_before - ended).total_seconds()


def test_job_that_snoozes_in_a_tight_loop_pauses_longer_and_longer() -> None:
    app = Jobs("memory://")

    @app.job
    def polls(run: Run) -> None:
        raise Snooze(0)

    with jobs_under_test(app) as jobs:
        job_id = app.submit(polls).job_id
        for pause in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300):
            jobs.drain()
            assert pause_of(get(app, job_id)) == pause
            jobs.clock.advance(pause)
        assert get(app, job_id).attempt <= 1


def test_long_snoozes_before_a_short_one_cause_no_pause() -> None:
    app = Jobs("memory://")
    snoozes = ["30s"] * 20 + ["0s"] * 10

    @app.job
    def polls(run: Run) -> str:
        if snoozes:
            raise Snooze(snoozes.pop(0))
        return "ready"

    with jobs_under_test(app) as jobs:
        job_id = app.submit(polls).job_id
        for _ in range(20):
            jobs.drain()
            jobs.clock.advance("30s")
        jobs.drain()
        assert get(app, job_id).result == "ready"


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
