"""Jobs that snooze, once or again and again, and starts that a gate or a rate holds back."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import pytest

from milepost import Job, Jobs, Run, Snooze
from milepost.testing import jobs_under_test
from tests.waiting import PATIENCE, current
from tests.worker import sleeping

pytestmark = pytest.mark.timing


def pause_of(job: Job) -> float:
    """Return the seconds between the last run of a pending job and its next one."""
    ended = job.attempts[-1].ended_at
    assert ended is not None
    assert job.not_before is not None
    return (job.not_before - ended).total_seconds()


def test_snooze_gives_the_job_back_at_no_attempt(jobs: Jobs) -> None:
    starts: list[int] = []

    @jobs.job
    def asks(run: Run) -> str:
        starts.append(run.attempt)
        if len(starts) < 3:
            raise Snooze("100ms" if len(starts) == 1 else 0.1)
        return "answered"

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(asks).job_id, PATIENCE)
    assert (job.result, starts, job.attempt) == ("answered", [1, 1, 1], 1)


def test_snooze_closes_the_gate_for_other_jobs(jobs: Jobs) -> None:
    starts: list[tuple[str, float]] = []

    @jobs.job
    def asks(run: Run) -> None:
        starts.append((run.job_id, time.time()))
        if len(starts) == 1:
            raise Snooze("400ms", gate="api")

    jobs.worker()  # so that in memory none starts at a submit, both at once
    made = [jobs.submit(asks.options(limit_key="api")).job_id for _ in range(2)]
    with jobs.run_workers(concurrency=1):
        for job_id in made:
            assert jobs.wait(job_id, PATIENCE).attempt == 1
    assert sorted(job_id for job_id, _ in starts) == sorted([starts[0][0], *made])
    assert min(at for _, at in starts[1:]) - starts[0][1] >= 0.4
    released = [
        event.message for event in jobs.events(starts[0][0]) if event.kind == "released" and "Snoozed" in event.message
    ]
    assert released == ["Snoozed for 0.4 s (gate api)"]
    assert jobs.limits() == []


def test_jobs_start_at_their_rate(jobs: Jobs) -> None:
    @jobs.job
    def asks(run: Run) -> None: ...

    jobs.limit("asks", rate="10/s")
    made = [jobs.submit(asks).job_id for _ in range(5)]
    with jobs.run_workers():
        ended = [jobs.wait(job_id, PATIENCE) for job_id in made]
    starts = sorted(job.started_at for job in ended if job.started_at is not None)
    assert all((b - a).total_seconds() >= 0.099 for a, b in pairwise(starts))
    assert len(starts) == 5


@pytest.mark.parametrize("delay", ["soon", None, float("nan"), -1])
def test_snooze_with_an_invalid_delay_fails_the_attempt(jobs: Jobs, delay: Any) -> None:
    @jobs.job
    def asks(run: Run) -> None:
        raise Snooze(delay)

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(asks).job_id, PATIENCE)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.startswith("delay: ")


def test_job_that_snoozes_in_a_tight_loop_pauses_longer_and_longer() -> None:
    app = Jobs("memory://")

    @app.job
    def polls(run: Run) -> None:
        raise Snooze(0)

    with jobs_under_test(app) as jobs:
        job_id = app.submit(polls).job_id
        for pause in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300):
            jobs.drain()
            assert pause_of(current(app, job_id)) == pause
            jobs.clock.advance(pause)
        assert current(app, job_id).attempt <= 1


def test_tight_loop_in_a_child_process_pauses(jobs: Jobs) -> None:
    jobs.handlers.add(sleeping.snoozes)
    with jobs.run_workers():
        job_id = jobs.submit("snoozes.child").job_id
        end = time.monotonic() + PATIENCE
        while (job := current(jobs, job_id)).not_before is None or job.status != "pending" or pause_of(job) < 1:
            assert time.monotonic() < end
            time.sleep(0.02)


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
        assert current(app, job_id).result == "ready"


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
        assert jobs.wait(jobs.submit(polls).job_id, 60).result == 17  # pauses would be 63 s
