"""Stages that the code leaves before their end: the job does not say that it is in them, unless its run has ended there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from milepost import AsyncJobManager, AsyncRun, Job, JobManager, Jobs, Run
from milepost.testing import fake_run
from tests.waiting import PATIENCE, until


def is_shown(manager: JobManager, run: Run, activity: str) -> bool:
    job = manager.get_job(run.job_id)
    return job is not None and job.activity == activity


def stages_of(job: Job | None) -> list[tuple[str, float, bool]]:
    """Return the stages of a job: their names and counts, and whether they have ended."""
    assert job is not None
    return [(stage.name, stage.done, stage.ended_at is not None) for stage in job.stages]


def test_activity_forgets_loop_left_by_break(manager: JobManager) -> None:
    """Regression: it was `3 of 20 items` until the job ended."""
    with manager.track("search") as run:
        for number in run.each(range(20)):
            if number == 3:
                until(lambda: is_shown(manager, run, "3 of 20 items"))
                break
        until(lambda: is_shown(manager, run, "Running"))
        run.progress(message="writing the result")
        until(lambda: is_shown(manager, run, "writing the result"))
    assert stages_of(manager.get_job(run.job_id)) == [("items", 3, True)]


async def test_activity_forgets_async_loop_left_by_break() -> None:
    manager = AsyncJobManager("memory://")

    async def until_shown(run: AsyncRun, activity: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while (await manager.get_job(run.job_id)).activity != activity:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)

    async with manager.track("search") as run:
        async for number in run.each(range(20), resume=True):
            if number == 3:
                await until_shown(run, "3 of 20 items")
                break
        await until_shown(run, "Running")
    assert stages_of(await manager.get_job(run.job_id)) == [("items", 3, True)]


def test_activity_forgets_stage_whose_error_was_handled(manager: JobManager) -> None:
    with manager.track("search") as run:
        try:
            with run.stage("Fast path", total=9) as stage:
                stage.advance(2)
                raise LookupError
        except LookupError:
            until(lambda: is_shown(manager, run, "Running"))
        with run.stage("Slow path"):
            until(lambda: is_shown(manager, run, "Slow path"))
    assert stages_of(manager.get_job(run.job_id)) == [("Fast path", 2, True), ("Slow path", 0, True)]


def searches(run: Run, way: str) -> None:
    for number in run.each(range(20)):
        if number == 3:
            if way == "raise":
                raise ValueError
            break
    with run.stage("Write"):
        raise ValueError


@pytest.mark.parametrize(
    ("way", "stages"), [("raise", [("items", 3, False)]), ("break", [("items", 3, True), ("Write", 0, False)])]
)
def test_failed_job_shows_stage_in_which_it_failed(way: str, stages: Any) -> None:
    jobs = Jobs("memory://")
    jobs.job("search")(searches)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit("search", {"way": way}), PATIENCE)
    assert (job.status, stages_of(job)) == ("failed", stages)


def test_progress_counts_share_of_loop_left_by_break() -> None:
    run = fake_run()
    run.plan("Search", "Write")
    for number in run.each(range(20), stage="Search"):
        if number == 10:
            break
    assert run.fraction == 0.25
    with run.stage("Write"):
        assert run.fraction == 0.5


def test_stages_left_by_errors_are_limited() -> None:
    run = fake_run()
    for number in range(300):
        try:
            with run.stage(str(number)):
                raise LookupError
        except LookupError:
            pass
    assert len(run.stages) <= 201
