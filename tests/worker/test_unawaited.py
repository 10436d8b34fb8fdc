"""A forgotten `await` of a call of the run ends the attempt as an error."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from milepost import AsyncJobs, AsyncRun, InMemoryJobManager, InvalidInputError, Jobs, Run
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.timing, pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")]
ERROR = "run.{0}(): was called without await and had no effect; write await run.{0}(...)"


async def embed(number: int) -> int:
    return number


async def asynchronous(run: Run) -> None:
    run.acheckpoint(1)  # type: ignore[unused-coroutine]


async def mapping(run: AsyncRun) -> None:
    run.map(embed, range(3))  # type: ignore[unused-coroutine]


async def stepping(run: AsyncRun) -> None:
    run.step("a", str)  # type: ignore[unused-coroutine]


def blocking(run: Run) -> None:
    run.acheckpoint(1)  # type: ignore[unused-coroutine]


async def raising(run: AsyncRun) -> None:
    run.step("a", str)  # type: ignore[unused-coroutine]
    raise LookupError("its own error")


@pytest.mark.parametrize(
    ("handler", "name"),
    [(asynchronous, "acheckpoint"), (mapping, "map"), (stepping, "step"), (blocking, "acheckpoint")],
)
def test_forgotten_await_fails_the_attempt(jobs: Jobs, handler: Any, name: str) -> None:
    """Regression: a job completed although its handler had forgotten an await, so that the work was never done."""
    jobs.job("forgets")(handler)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit("forgets").job_id, PATIENCE)
    assert (job.status, job.error) == ("failed", ERROR.format(name))


def test_error_of_the_code_comes_first(jobs: Jobs) -> None:
    jobs.job("forgets")(raising)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit("forgets").job_id, PATIENCE)
    assert job.error == "its own error"


def test_forgotten_await_in_a_tracked_block_raises() -> None:
    job_manager = InMemoryJobManager()
    with pytest.raises(InvalidInputError, match=r"run\.acheckpoint\(\): was called"), job_manager.track("t") as run:
        run.acheckpoint(1)  # type: ignore[unused-coroutine]
    job = job_manager.get_job(run.job_id)
    assert job is not None
    assert job.status == "failed"
    job_manager.close()


async def test_forgotten_await_in_an_async_block_raises() -> None:
    jobs = AsyncJobs("memory://")
    with contextlib.suppress(InvalidInputError):
        async with jobs.track("t") as run:
            run.step("a", str)  # type: ignore[unused-coroutine]
    job = await jobs.get_job(run.job_id)
    await jobs.close()
    assert job is not None
    assert (job.status, job.error) == ("failed", ERROR.format("step"))


def test_awaited_calls_change_nothing(jobs: Jobs) -> None:
    @jobs.job
    async def awaits(run: AsyncRun) -> list[Any]:
        for number in range(3):
            await run.acheckpoint(number)
        return [len(run.recent_log), await run.step("a", embed, 7), await run.step("b", str, 8)]

    @jobs.job
    async def maps(run: Run) -> list[int]:
        return [*await run.map(embed, range(3)), await asyncio.create_task(run.step("a", embed, 7))]

    with jobs.run_workers():
        first = jobs.wait(jobs.submit(awaits).job_id, PATIENCE)
        second = jobs.wait(jobs.submit(maps).job_id, PATIENCE)
    assert (first.result, second.result) == ([0, 7, "8"], [0, 1, 2, 7])
