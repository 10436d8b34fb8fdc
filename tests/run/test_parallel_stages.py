"""Stages that are open at once in several tasks or threads stand side by side, in the stage in which the code started these."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from milepost import AsyncJobManager, AsyncRun, JobManager, Run
from tests.waiting import PATIENCE

Parents = dict[str, str | None]


def parents(run: Run) -> Parents:
    """Return the name of the stage around each stage."""
    return {stage.name: stage.parent for stage in run.stages}


async def in_loop(run: AsyncRun, name: str, size: int, both: asyncio.Barrier) -> None:
    async for number in run.each(range(size), stage=name):
        if number == 1:
            await both.wait()


async def in_stage(run: AsyncRun, name: str, size: int, both: asyncio.Barrier) -> None:
    async with run.stage(name, total=size) as stage:
        stage.advance()
        await both.wait()
        async with run.stage(f"{name} again"):
            stage.advance(size - 1)


@pytest.mark.parametrize("counts", [in_loop, in_stage])
async def test_progress_counts_each_of_parallel_tasks(counts: Callable[..., asyncio.Future[None]]) -> None:
    """Regression: the second stage was a part of the first, and the job was at 99 % when that one had ended."""
    async with AsyncJobManager("memory://").track("mirror") as run:
        run.plan("photos", "videos")
        both = asyncio.Barrier(3)
        photos = asyncio.create_task(counts(run, "photos", 4, both))
        videos = asyncio.create_task(counts(run, "videos", 400, both))
        async with asyncio.timeout(PATIENCE):
            await both.wait()
            found = parents(run)
            await photos
        assert {found["photos"], found["videos"]} == {None}
        assert 0.5 <= run.fraction <= 1.0
        await videos
        assert parents(run).get("videos again") in ("videos", None)
        assert run.fraction == 1.0


async def test_job_without_plan_has_no_percentage_of_one_of_two_stages() -> None:
    async with AsyncJobManager("memory://").track("mirror") as run:
        both = asyncio.Barrier(3)
        tasks = [asyncio.create_task(in_loop(run, name, size, both)) for name, size in (("a", 4), ("b", 400))]
        async with asyncio.timeout(PATIENCE):
            await both.wait()
        assert not run.progress_known
        assert run.fraction < 0.5
        await asyncio.gather(*tasks)


async def test_tasks_and_threads_are_in_the_stage_that_started_them() -> None:
    async with AsyncJobManager("memory://").track("mirror") as run, run.stage("all"):
        both = asyncio.Barrier(3)
        tasks = [asyncio.create_task(in_stage(run, name, 9, both)) for name in ("a", "b")]
        async with asyncio.timeout(PATIENCE):
            await both.wait()
            await asyncio.gather(*tasks)
        await asyncio.to_thread(lambda: run.stage("c").end())
        assert parents(run) == {"all": None, "a": "all", "a again": "a", "b": "all", "b again": "b", "c": "all"}


@contextmanager
def around(run: Run, name: str | None) -> Iterator[None]:
    if name is None:
        yield
    else:
        with run.stage(name):
            yield


@pytest.mark.parametrize("outer", [None, "all"])
def test_threads_of_a_pool_are_in_the_stage_of_the_handler(manager: JobManager, outer: str | None) -> None:
    both_are_open = threading.Barrier(2)

    def counts(name: str) -> None:
        with run.stage(name):
            both_are_open.wait(PATIENCE)
            for _ in run.each(range(3), stage=f"{name} items"):
                pass

    with ThreadPoolExecutor(2) as threads, manager.track("mirror") as run, around(run, outer):
        list(threads.map(counts, ("a", "b"), timeout=PATIENCE))
        found = parents(run)
    found.pop("all", None)
    assert found == {"a": outer, "a items": "a", "b": outer, "b items": "b"}
