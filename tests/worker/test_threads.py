"""The end of an async handler, and of its stop, waits for the threads that its code has started."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from milepost import AsyncJobs, JobCancelled, Jobs, Run, Settings
from milepost.worker import RunExecutor
from tests.waiting import PATIENCE, current
from tests.worker.conftest import Workers
from tests.worker.job_assertions import Signals, ended

pytestmark = pytest.mark.timing

Start = Callable[[Callable[[], None]], Coroutine[Any, Any, Any]]
_pool = ThreadPoolExecutor(2)


async def in_the_executor(work: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(None, work)


async def in_a_pool(work: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(_pool, work)


async def in_two_threads(work: Callable[[], None]) -> None:
    await asyncio.gather(asyncio.to_thread(work), asyncio.to_thread(work))


async def in_a_task(work: Callable[[], None]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(work))


class Working(Signals):
    """Work in a thread without cancellation points, until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping = threading.Event()
        self.returned_at = datetime.min.replace(tzinfo=UTC)

    def work(self) -> None:
        """Work in the thread."""
        self.began.set()
        self.let_go.wait(PATIENCE)
        self.returned_at = datetime.now(UTC)

    async def await_it(self, start: Start) -> None:
        """Await the work, as the code of a handler."""
        try:
            await start(self.work)
        finally:
            self.stopping.set()


@pytest.fixture
def working() -> Any:
    """Yield work that ends with the test."""
    made = Working()
    yield made
    made.let_go.set()


@pytest.mark.parametrize("start", [asyncio.to_thread, in_the_executor, in_a_pool, in_two_threads, in_a_task])
def test_cancel_is_confirmed_after_threads_returned(jobs: Jobs, working: Working, start: Start) -> None:
    """Regression: a cancelled `await asyncio.to_thread(work)` was reported as stopped while `work` continued."""

    @jobs.job("threaded")
    async def threaded(run: Run) -> None:
        await working.await_it(start)

    @jobs.job("next")
    async def following(run: Run) -> None:
        pass

    with jobs.run_workers():
        job = jobs.submit(threaded)
        assert working.began.wait(PATIENCE)
        jobs.cancel_job(job.job_id)
        assert working.stopping.wait(PATIENCE)
        jobs.wait(jobs.submit(following).job_id, PATIENCE)  # the loop has turned, and writes have been sent
        receipt = current(jobs, job).receipt
        assert receipt is not None
        assert receipt.confirmed is not True
        working.let_go.set()
        last = ended(jobs, job).receipt
    assert last is not None
    assert last.stopped_at is not None
    assert (last.how, last.confirmed) == ("task_cancelled", True)
    assert last.stopped_at >= working.returned_at


@pytest.mark.parametrize("outcome", ["returns", "raises"])
def test_end_is_written_after_leftover_thread_returned(jobs: Jobs, working: Working, outcome: str) -> None:
    left: list[asyncio.Task[None]] = []

    @jobs.job("leaves")
    async def leaves(run: Run) -> str:
        left.append(asyncio.create_task(asyncio.to_thread(working.work)))
        await asyncio.sleep(0)
        while not working.began.is_set():
            await asyncio.sleep(0.01)
        working.stopping.set()
        if outcome == "raises":
            raise ValueError("bad")
        return "done"

    @jobs.job("next")
    async def following(run: Run) -> None:
        pass

    with jobs.run_workers():
        job = jobs.submit(leaves)
        assert working.stopping.wait(PATIENCE)
        jobs.wait(jobs.submit(following).job_id, PATIENCE)
        assert current(jobs, job).status == "running"
        working.let_go.set()
        last = ended(jobs, job)
    assert last.status == ("completed" if outcome == "returns" else "failed")
    assert last.completed_at is not None
    assert last.completed_at >= working.returned_at


def test_error_of_unawaited_thread_ends_nothing_else(jobs: Jobs) -> None:
    @jobs.job("leaves")
    async def leaves(run: Run) -> str:
        def fails() -> None:
            raise ValueError("in a thread")

        asyncio.get_running_loop().run_in_executor(None, fails).cancel()
        return "done"

    with jobs.run_workers():
        assert ended(jobs, jobs.submit(leaves)).result == "done"


def test_cancel_in_child_is_confirmed_after_its_threads(workers: Workers) -> None:
    """The stop was confirmed, and the next run could start, while `asyncio.to_thread` was still running the old code."""
    with contextlib.closing(workers.jobs()) as jobs:
        workers.start(MILEPOST_GRACE="60")
        job = jobs.enqueue("isolated-thread", {"seconds": 1.0})
        workers.noted("thread began")
        jobs.cancel_job(job.job_id)
        receipt = ended(jobs, job).receipt
    assert receipt is not None
    assert receipt.confirmed is True
    assert workers.log.read_text().splitlines()[-1] == "thread returned"


async def test_run_executor_in_host_loop_waits_for_threads(working: Working) -> None:
    """In the loop of a host, its owner can make RunExecutor the default executor, for workers and tracked blocks."""
    asyncio.get_running_loop().set_default_executor(RunExecutor())
    jobs = AsyncJobs("memory://", options=Settings(heartbeat=0.02))

    @jobs.job("threaded")
    async def threaded(run: Run) -> None:
        await working.await_it(asyncio.to_thread)

    async with jobs.run_workers():
        job = await jobs.submit(threaded)
        while not working.began.is_set():
            await asyncio.sleep(0.01)
        await jobs.cancel_job(job.job_id)
        while not working.stopping.is_set():
            await asyncio.sleep(0.01)
        async with asyncio.timeout(PATIENCE):
            threading.Timer(0.05, working.let_go.set).start()
            async for _ in jobs.watch(job.job_id):
                pass
        last = await jobs.get_job(job.job_id)
        assert last is not None
        assert last.receipt is not None
        assert last.receipt.stopped_at is not None
        assert last.receipt.stopped_at >= working.returned_at
    working.let_go.clear()
    working.began.clear()
    with pytest.raises(JobCancelled):
        async with jobs.track("block") as run:
            await asyncio.gather(_cancel(jobs, run, working), asyncio.to_thread(working.work))
    found = await jobs.get_job(run.job_id)
    assert found is not None
    assert found.receipt is not None
    assert found.receipt.stopped_at is not None
    assert found.receipt.stopped_at >= working.returned_at
    await jobs.close()


async def _cancel(jobs: AsyncJobs, run: Run, working: Working) -> None:
    while not working.began.is_set():
        await asyncio.sleep(0.01)
    await jobs.cancel_job(run.job_id)
    threading.Timer(0.1, working.let_go.set).start()
    await asyncio.sleep(PATIENCE)
