"""Concurrent handlers: limits, pauses, contexts, and leases that are renewed whatever the code does."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import pytest

from milepost import AsyncRun, InvalidInputError, Jobs, Run
from milepost.worker.worker import WorkerGroup
from tests.chaos.calibration import slowness
from tests.waiting import PATIENCE
from tests.worker.conftest import MakeJobs
from tests.worker.job_assertions import Signals, ended

pytestmark = pytest.mark.timing

LEASE = 2.0
"""Seconds, times the slowness of the machine; a lease that is shorter than a pause of the machine is lost."""


def test_type_limit_holds_over_all_workers(jobs: Jobs) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    @jobs.job("few", concurrency=2)
    def few(run: Run) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.03)
        with lock:
            now[0] -= 1

    with jobs.run_workers(workers=2):
        ids = jobs.submit_many(few, [{}] * 12)
        for job_id in ids:
            jobs.wait(job_id, PATIENCE)
    assert most[0] == 2


def test_paused_type_waits_and_resumes_at_once(jobs: Jobs) -> None:
    @jobs.job("paused")
    async def paused(run: Run) -> None: ...

    @jobs.job("other")
    async def other(run: Run) -> None: ...

    with jobs.run_workers():
        jobs.set_limit("paused", paused=True)
        assert jobs.job_type("paused").paused
        job = jobs.submit(paused)
        jobs.wait(jobs.submit(other).job_id, PATIENCE)
        found = jobs.get_job(job.job_id)
        assert found is not None
        assert found.status == "pending"
        jobs.set_limit("paused")
        assert jobs.wait(job.job_id, PATIENCE).status == "completed"


def test_each_handler_gets_own_context(jobs: Jobs) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")
    seen: list[str] = []

    def dirty(run: Run) -> None:
        seen.append(variable.get())
        variable.set("dirty")

    async def adirty(run: Run) -> None:
        dirty(run)

    jobs.job("dirty")(dirty)
    jobs.job("adirty")(adirty)
    with jobs.run_workers(concurrency=1):
        for _ in range(3):
            jobs.wait(jobs.submit("dirty").job_id, PATIENCE)
            jobs.wait(jobs.submit("adirty").job_id, PATIENCE)
    assert seen == ["clean"] * 6


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has them first")
async def test_handlers_run_in_loop_with_eager_tasks(jobs: Jobs) -> None:
    awaits = asyncio.Event()

    @jobs.job("waits")
    async def waits(run: Run) -> str:
        await awaits.wait()
        return "waited"

    @jobs.job("at-once")
    async def at_once(run: Run) -> str:
        awaits.set()
        return "at once"

    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    async with jobs.run_workers():
        waiting = await asyncio.to_thread(jobs.submit, waits)
        job = await asyncio.to_thread(jobs.submit, at_once)
        assert (await asyncio.to_thread(jobs.wait, job.job_id, 30)).result == "at once"
        assert (await asyncio.to_thread(jobs.wait, waiting.job_id, 30)).result == "waited"


def a_handler(run: Run) -> None:
    """Do nothing, as a handler with a registered name that a child process does not find."""


def test_workers_that_cannot_start_raise(jobs: Jobs) -> None:
    jobs.job("hidden", isolation="process")(a_handler)
    before = threading.enumerate()
    with pytest.raises(InvalidInputError, match="is not the decorated handler"):
        jobs.run_workers(2).__enter__()
    started = [thread for thread in threading.enumerate() if thread not in before]
    assert [thread for thread in started if thread.name == "milepost-worker"] == []


async def test_failed_start_leaves_no_worker_in_loop(jobs: Jobs) -> None:
    good = jobs.worker()
    jobs.job("hidden", isolation="process")(a_handler)
    running = WorkerGroup([good, jobs.worker()])
    with pytest.raises(InvalidInputError, match="is not the decorated handler"):
        await running.__aenter__()
    assert good.closed


def test_blocked_event_loop_keeps_leases_and_is_logged(make_jobs: MakeJobs) -> None:
    lease = LEASE * slowness()
    jobs = make_jobs(lease=lease, sweep=0.1)

    @jobs.job("blocks")
    async def blocks(run: Run) -> str:
        time.sleep(1.5 * lease)  # noqa: ASYNC251 - to block is the point
        return f"attempt {run.attempt}"

    with jobs.run_workers():
        job = ended(jobs, jobs.submit(blocks))
    assert (job.status, job.result, job.crashes) == ("completed", "attempt 1", 0)
    text = str([event.data for event in jobs.events(job.job_id) if event.kind == "log"])
    assert "the event loop has been blocked" in text
    assert "in blocks" in text


def test_run_longer_than_lease_is_not_run_twice(make_jobs: MakeJobs, signals: Signals) -> None:
    lease = LEASE * slowness()
    jobs = make_jobs(lease=lease, sweep=0.05)

    @jobs.job("long")
    def long(run: Run) -> None:
        signals.calls += 1
        time.sleep(2.5 * lease)

    with jobs.run_workers(workers=2):
        job = ended(jobs, jobs.submit(long))
    assert (job.status, job.attempt, job.crashes, signals.calls) == ("completed", 1, 0, 1)


def test_async_steps_under_way_are_kept_at_a_deploy(jobs: Jobs) -> None:
    """Regression: they were paid for again. A cancelled `gather` ends with its first task, before its steps."""
    calls: list[int] = []
    begun = threading.Event()

    @jobs.job
    async def translate(run: AsyncRun) -> int:
        answered = asyncio.Event()

        async def pay(number: int) -> int:
            calls.append(number)
            if len(calls) == 3:
                begun.set()
            await answered.wait()
            return number

        async def wait_for_stop() -> None:
            try:
                await asyncio.sleep(0 if begun.is_set() else 60)
            finally:
                answered.set()

        await asyncio.gather(wait_for_stop(), *[run.step(f"page {number}", pay, number) for number in range(3)])
        return len(calls)

    with jobs.run_workers():
        job_id = jobs.submit(translate).job_id
        assert begun.wait(PATIENCE)
    with jobs.run_workers():
        assert jobs.wait(job_id, PATIENCE).result == 3
