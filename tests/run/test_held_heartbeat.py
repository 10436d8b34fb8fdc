"""While a heartbeat waits for the store, code continues: what it calls, and the event loop at the end of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from milepost import AsyncJobManager, Job, JobManager, Jobs, Run, Settings
from milepost.stores.factory import open_store
from tests.run.held_heartbeat import HeldHeartbeat
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timing


Hold = Callable[[JobManager | AsyncJobManager], HeldHeartbeat]


@pytest.fixture(params=["request", "reply"])
def hold(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Return a function that holds a heartbeat of a manager."""
    return lambda manager: HeldHeartbeat(manager.runtime.heartbeat.store, monkeypatch, before=request.param)


def report(run: Run) -> None:
    """Do what code of a run does at each item."""
    run.progress(0.5, "newer")
    run.check()
    run.log("newer line")
    run.output("newer text")
    run.add_usage(tokens=2)
    with run.stage("Newer", total=1) as stage:
        stage.advance()
    for item in run.each(["one"], stage="Items"):
        with run.item(item):
            run.check()


def is_newer(job: Job | None) -> bool:
    """Return whether a record has all of the newer report."""
    assert job is not None
    names = [stage.name for stage in job.stages]
    return (job.message, job.progress, job.usage, names) == ("newer", 0.5, {"tokens": 2}, ["Newer", "Items"])


def continues(run: Run, held: HeldHeartbeat) -> None:
    """Report while a heartbeat is held, and release it."""
    assert held.began.wait(PATIENCE)
    report(run)
    assert held.is_held, "the code has waited for the heartbeat"
    held.release()


def test_tracked_block_continues(manager: JobManager, hold: Hold) -> None:
    held = hold(manager)
    with manager.track("block") as run:
        run.progress(0.25, "older")
        continues(run, held)
        until(lambda: is_newer(manager.get_job(run.job_id)))


async def test_async_tracked_block_continues(url: str, options: Settings, hold: Hold) -> None:
    manager = AsyncJobManager(open_store(url, namespace=options.namespace, blocking=False), options=options)
    held = hold(manager)
    async with manager.track("block") as run:
        run.progress(0.25, "older")
        await asyncio.to_thread(held.began.wait, PATIENCE)
        continues(run, held)
        while not is_newer(await manager.get_job(run.job_id)):
            await asyncio.sleep(0.01)
    await manager.close()


def test_handler_in_thread_continues(manager: JobManager, hold: Hold) -> None:
    jobs, held = Jobs(manager), hold(manager)

    @jobs.job("works")
    def works(run: Run) -> None:
        run.progress(0.25, "older")
        continues(run, held)
        until(lambda: is_newer(jobs.get_job(run.job_id)))

    with jobs.run_workers():
        assert jobs.wait(jobs.submit(works), PATIENCE).status == "completed"


def test_handlers_in_event_loop_continue_and_end(manager: JobManager, hold: Hold) -> None:
    """A run that ends waits for the heartbeat that reports it, but the event loop does not."""
    jobs, held = Jobs(manager), hold(manager)
    began, is_over, has_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @jobs.job("ends")
    async def ends(run: Run) -> str:
        began.set()
        await is_over.wait()
        report(run)
        asyncio.get_running_loop().call_soon(has_ended.set)
        return "done"

    @jobs.job("works")
    async def works(run: Run) -> None:
        await began.wait()
        run.progress(0.25, "older")
        await asyncio.to_thread(held.began.wait, PATIENCE)
        is_over.set()
        await has_ended.wait()
        continues(run, held)
        await asyncio.to_thread(until, lambda: is_newer(jobs.get_job(run.job_id)))

    with jobs.run_workers():
        other, job = jobs.submit(ends), jobs.submit(works)
        assert jobs.wait(job, PATIENCE).status == "completed"
        other = jobs.wait(other, PATIENCE)
    assert (other.status, other.result, other.message, other.usage) == ("completed", "done", "newer", {"tokens": 2})
    texts = [line["text"] for event in jobs.events(other.job_id) for line in (event.data or {}).get("lines", ())]
    assert texts == ["newer line"]
