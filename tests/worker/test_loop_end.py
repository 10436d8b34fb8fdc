"""The event loop of a worker ends, as at the end of `asyncio.run`: the worker gives its running jobs back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from milepost import AsyncRun, Jobs, Run
from tests.waiting import current, until
from tests.worker.conftest import MakeJobs

pytestmark = pytest.mark.timing


async def waits(run: AsyncRun) -> None:
    await asyncio.Event().wait()


def loops(run: Run) -> None:
    while True:
        run._wait_in_place(0.01)
        run.check()


@pytest.mark.parametrize("handler", [waits, loops])
def test_running_job_is_given_back_at_the_end_of_the_loop(jobs: Jobs, handler: Any) -> None:
    """Regression: it was running until its lease ended."""
    jobs.job("endless")(handler)
    worker = jobs.worker()
    job = jobs.submit("endless")

    async def main() -> None:
        task = asyncio.create_task(worker.serve())
        await asyncio.to_thread(until, lambda: current(jobs, job).status == "running")
        assert not task.done()

    asyncio.run(main())
    left = current(jobs, job)
    assert (left.status, left.attempt, len(left.attempts), left.error) == ("pending", 0, 1, None)
    assert jobs.workers() == []


async def test_cancelled_worker_stops_at_once_at_the_second_cancel(make_jobs: MakeJobs) -> None:
    """Code that ignores its stop is not waited for."""
    over, jobs = asyncio.Event(), make_jobs(grace=600)

    @jobs.job("stubborn")
    async def stubborn(run: AsyncRun) -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    worker = jobs.worker()
    job = await asyncio.to_thread(jobs.submit, "stubborn")
    task = asyncio.create_task(worker.serve())
    await asyncio.to_thread(until, lambda: current(jobs, job).status == "running")
    try:
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await asyncio.to_thread(current, jobs, job)).status == "pending"
    finally:
        over.set()
