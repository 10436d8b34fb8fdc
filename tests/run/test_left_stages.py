"""Stages that the code leaves before their end: the job does not say that it is in them, unless its run has ended there."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
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


async def until_shown(manager: AsyncJobManager, run: AsyncRun, activity: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await manager.get_job(run.job_id)).activity != activity:  # type: ignore[union-attr]
            await asyncio.sleep(0.01)


async def test_activity_forgets_async_loop_left_by_break() -> None:
    manager = AsyncJobManager("memory://")
    async with manager.track("search") as run:
        async for number in run.each(range(20), resume=True):
            if number == 3:
                await until_shown(manager, run, "3 of 20 items")
                break
        await until_shown(manager, run, "Running")
    assert stages_of(await manager.get_job(run.job_id)) == [("items", 3, True)]


async def test_activity_forgets_async_loop_left_by_break_inside_a_stage() -> None:
    manager = AsyncJobManager("memory://")
    async with manager.track("search") as run:
        async with run.stage("Find"):
            async for number in run.each(range(20), stage="Pages"):
                if number == 3:
                    await until_shown(manager, run, "Pages 3 of 20 items")
                    break
        await until_shown(manager, run, "Running")
        assert stages_of(await manager.get_job(run.job_id)) == [("Find", 0, True), ("Pages", 3, True)]


async def counts_in_loop(run: AsyncRun, name: str, size: int, pause_at: int, pause: Any) -> None:
    async for number in run.each(range(size), stage=name):
        if number == pause_at:
            await pause()
        await asyncio.sleep(0)


async def counts_in_stage(run: AsyncRun, name: str, size: int, pause_at: int, pause: Any) -> None:
    async with run.stage(name, total=size) as stage:
        for number in range(size):
            if number == pause_at:
                await pause()
            stage.advance()
            await asyncio.sleep(0)


@pytest.mark.parametrize("counts", [counts_in_loop, counts_in_stage])
async def test_stage_of_another_task_stays_open(counts: Any) -> None:
    """Regression: the end of a stage ended those which were begun after it, although other tasks were still in them."""
    manager = AsyncJobManager("memory://")
    first_has_ended = asyncio.Event()

    async def later() -> None:
        await first_has_ended.wait()
        await until_shown(manager, run, "b 60 of 500 items")
        async with run.stage("c"):
            await until_shown(manager, run, "c")
        await until_shown(manager, run, "b 60 of 500 items")
        assert ("b", 60, False) in stages_of(await manager.get_job(run.job_id))

    async with manager.track("search") as run, asyncio.TaskGroup() as tasks:
        first = tasks.create_task(counts(run, "a", 5, -1, None))
        tasks.create_task(counts(run, "b", 500, 60, later))
        await first
        first_has_ended.set()
    assert sorted(stages_of(await manager.get_job(run.job_id))) == [("a", 5, True), ("b", 500, True), ("c", 0, True)]


@pytest.mark.parametrize("is_loop", [True, False])
def test_stage_of_another_thread_stays_open(manager: JobManager, is_loop: bool) -> None:
    both_are_open, first_has_ended = threading.Barrier(2), threading.Event()

    def counts(name: str, size: int, pause_at: int, pause: Any) -> None:
        if is_loop:
            for number in run.each(range(size), stage=name):
                if number == pause_at:
                    pause()
        else:
            with run.stage(name, total=size) as stage:
                for number in range(size):
                    if number == pause_at:
                        pause()
                    stage.advance()

    def later() -> None:
        both_are_open.wait(PATIENCE)
        assert first_has_ended.wait(PATIENCE)
        with run.stage("c"):
            until(lambda: is_shown(manager, run, "c"))
        until(lambda: is_shown(manager, run, "b 60 of 500 items"))

    def begin_second() -> None:
        futures.append(threads.submit(counts, "b", 500, 60, later))
        both_are_open.wait(PATIENCE)

    futures: list[Any] = []
    with ThreadPoolExecutor(1) as threads, manager.track("search") as run:
        counts("a", 5, 2, begin_second)
        first_has_ended.set()
        futures[0].result(PATIENCE)
    assert sorted(stages_of(manager.get_job(run.job_id))) == [("a", 5, True), ("b", 500, True), ("c", 0, True)]


def test_stages_that_are_counted_by_hand_stay_open() -> None:
    run = fake_run()
    first, second = run.stage("a", total=5), run.stage("b", total=500)
    first.end()
    with run.stage("c"):
        second.advance(60)
    assert [(stage.name, stage.ended_at is None) for stage in run.stages] == [("a", False), ("b", True), ("c", False)]
    assert second.fraction == 60 / 500


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


async def asearches(run: AsyncRun, way: str) -> None:
    async for number in run.each(range(20)):
        if number == 3:
            if way == "raise":
                raise ValueError
            break
    await asyncio.sleep(0.001)
    async with run.stage("Write"):
        raise ValueError


@pytest.mark.parametrize("code", [searches, asearches])
@pytest.mark.parametrize(
    ("way", "stages"), [("raise", [("items", 3, False)]), ("break", [("items", 3, True), ("Write", 0, False)])]
)
def test_failed_job_shows_stage_in_which_it_failed(code: Any, way: str, stages: Any) -> None:
    jobs = Jobs("memory://")
    jobs.job("search")(code)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit("search", {"way": way}), PATIENCE)
    assert (job.status, stages_of(job)) == ("failed", stages)


async def finds(run: AsyncRun) -> int:
    async with run.stage("Find"):
        async for number in run.each(range(20), stage="Pages"):
            if number == 3:
                return number
    return 0


async def fails(run: AsyncRun) -> None:
    async with run.stage("Find"):
        async for number in run.each(range(20), stage="Pages"):
            if number == 3:
                raise ValueError


@pytest.mark.parametrize(
    ("code", "stages"), [(finds, [("Find", 0, True), ("Pages", 3, True)]), (fails, [("Find", 0, False), ("Pages", 3, False)])]
)  # fmt: skip
def test_async_job_that_ends_in_a_loop(code: Any, stages: Any) -> None:
    """The generator of an asynchronous loop is closed only after the code has returned."""
    jobs = Jobs("memory://")
    jobs.job("search")(code)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit("search"), PATIENCE)
    assert stages_of(job) == stages


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
