"""`track()` in an event loop: ends, cancels, and the lease while the loop is blocked, on every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import anyio
import pytest

from milepost import (
    AsyncJobManager,
    JobCancelled,
    JobManager,
    Run,
    Settings,
)
from milepost.core.transitions import plan_cancel
from milepost.stores.factory import open_store
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync
from tests.chaos.calibration import slowness
from tests.waiting import current, until

pytestmark = pytest.mark.timing


@pytest.fixture
async def amanager(url: str, options: Settings) -> Any:
    """Yield an async manager."""
    store = open_store(url, namespace=options.namespace, blocking=False)
    made = AsyncJobManager(store, options=options)
    yield made
    await made.close()


async def test_async_block_ends_like_blocking_block(amanager: AsyncJobManager) -> None:
    async with amanager.track("ingestion") as run:
        await run.acheckpoint({"page": 1})
        async for _ in run.each([1, 2, 3]):
            await asyncio.sleep(0)
        run.result = 3
    job = await amanager.get_job(run.job_id)
    assert job is not None
    assert (job.status, job.result, job.progress) == ("completed", 3, 1.0)
    with pytest.raises(ValueError):
        async with amanager.track() as run:
            raise ValueError("x")
    job = await amanager.get_job(run.job_id)
    assert job is not None
    assert (job.status, job.error) == ("failed", "x")


async def test_cancel_raises_job_cancelled_at_next_await(amanager: AsyncJobManager) -> None:
    with pytest.raises(JobCancelled, match="enough"):  # noqa: PT012
        async with amanager.track() as run:
            await amanager.cancel_job(run.job_id, "enough")
            await asyncio.sleep(30)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    job = await amanager.get_job(run.job_id)
    assert job is not None
    assert job.receipt is not None
    assert (job.receipt.how, job.receipt.confirmed) == ("task_cancelled", True)


async def test_late_cancel_does_not_interrupt_end_of_block(
    amanager: AsyncJobManager,
) -> None:
    with pytest.raises(JobCancelled, match="enough"):  # noqa: PT012
        async with amanager.track() as run:
            cancel = plan_cancel(new_operation_id(), by="ana", why="enough")
            run_sync(amanager.store.with_blocking(blocking=True).apply([Write(run.job_id, cancel)]))
            run.stop(JobCancelled("enough"))  # as the heartbeat does, if it has not done so yet
            run.result = "done"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    job = await amanager.get_job(run.job_id)
    assert job is not None
    assert job.receipt is not None
    assert (job.receipt.how, job.receipt.confirmed, job.receipt.late_result) == ("already_finished", True, "done")


async def test_cancel_of_task_stays_cancelled_error(amanager: AsyncJobManager) -> None:
    runs: list[Run] = []

    async def work() -> None:
        async with amanager.track() as run:
            runs.append(run)
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    while not runs:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    job = await amanager.get_job(runs[0].job_id)
    assert job is not None
    assert job.receipt is not None
    assert (job.status, job.receipt.requested_by) == ("cancelled", "its task")


@pytest.mark.parametrize("sleeps", [30.0, 0.0])
async def test_repeatedly_cancelled_task_writes_its_end(amanager: AsyncJobManager, sleeps: float) -> None:
    """anyio cancels at each await until its scope is left."""
    with anyio.CancelScope() as scope:
        async with amanager.track() as run:
            run.result = "done"
            if sleeps:
                scope.cancel()
                await asyncio.sleep(sleeps)
            asyncio.get_running_loop().call_soon(scope.cancel)
    assert scope.cancelled_caught
    job = await amanager.get_job(run.job_id)
    assert job is not None
    assert (job.status, job.result) == (("cancelled", None) if sleeps else ("completed", "done"))


async def test_lease_is_renewed_while_event_loop_is_blocked(url: str, options: Settings) -> None:
    lease = slowness()
    store = open_store(url, namespace=options.namespace, blocking=False)
    amanager = AsyncJobManager(store, options=replace(options, lease=lease))
    looking = JobManager(store.with_blocking(blocking=True))
    async with amanager.track() as run:
        first = int(current(looking, run).record["lease"])
        until(lambda: int(current(looking, run).record["lease"]) > first + lease * 500_000)  # blocks the loop
    job = await amanager.get_job(run.job_id)
    assert job is not None
    assert (job.status, job.attempt) == ("completed", 1)
    await amanager.close()
