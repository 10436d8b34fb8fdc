"""track(): a block of code as a job, on every store and both faces; and what the pulse carries meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest

from milepost import (
    AsyncJobManager,
    DuplicateJob,
    InvalidInput,
    Job,
    JobCancelled,
    JobIsLeased,
    JobManager,
    LeaseLost,
    Run,
    Settings,
)
from milepost.core.lifecycle import plan_cancel, plan_lost
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.opening import open_store
from milepost.stores.protocol import Write


def get(manager: JobManager, job_id: str) -> Job:
    """The job of an id."""
    job = manager.get_job(job_id)
    assert job is not None
    return job


def until(what: Callable[[], Any]) -> Any:
    """Wait until something is true; what it is."""
    deadline = time.monotonic() + 30
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)
    return found


def ticking(run: Run) -> None:
    """Tick until told to stop."""
    while True:
        run.check()
        time.sleep(0.002)


def test_a_block_is_a_job_from_its_begin_to_its_end(manager: JobManager) -> None:
    with manager.track("ingestion", metadata={"folder": "a"}, labels={"owner": "ana"}) as run:
        job = get(manager, run.job_id)
        assert (job.status, job.driver, job.attempt, job.metadata) == ("running", "track", 1, {"folder": "a"})
        assert (run.labels, run.metadata, run.fence > 0) == ({"owner": "ana"}, {"folder": "a"}, True)
        run.result = {"pages": 2}
    job = get(manager, run.job_id)
    assert (job.status, job.result, job.progress) == ("completed", {"pages": 2}, 1.0)
    assert job.lease_expires_at is None


def test_what_a_run_says_arrives_while_it_runs_and_its_last_word_with_its_end(manager: JobManager) -> None:
    with manager.track() as run:
        run.progress(0.3, "loading")
        run.log("a line")
        until(lambda: get(manager, run.job_id).progress == 0.3)
        assert get(manager, run.job_id).message == "loading"
        until(lambda: [event for event in manager.events(run.job_id) if event.kind == "log"])
        with run.stage("Late", weight=1):
            run.log("the last line")
            run.progress(0.9, "nearly")
    job = get(manager, run.job_id)
    assert (job.message, job.stages[0].name) == ("nearly", "Late")
    lines = [
        line["text"] for event in manager.events(run.job_id) if event.kind == "log" for line in event.data["lines"]
    ]
    assert lines == ["a line", "the last line"]


def test_versions_have_no_gaps_and_progress_only_goes_forward(manager: JobManager) -> None:
    seen: list[Any] = []
    with manager.track() as run:
        watcher = threading.Thread(target=lambda: seen.extend(manager.watch(run.job_id, after=0)))
        watcher.start()
        for _ in run.each(range(40)):
            time.sleep(0.005)
    watcher.join(30)
    versions = [event.version for event in seen if event.kind != "skipped"]
    assert versions == sorted(set(versions))
    fractions = [event.progress for event in seen if event.progress is not None]
    assert fractions == sorted(fractions)
    assert len(fractions) > 3
    assert seen[-1].kind == "completed"


def test_an_exception_fails_the_job_and_goes_on_to_the_caller(manager: JobManager) -> None:
    with pytest.raises(ValueError, match="no such page"), manager.track() as run:
        raise ValueError("no such page")
    job = get(manager, run.job_id)
    assert (job.status, job.error) == ("failed", "no such page")
    assert job.failure is not None
    assert job.failure.kind == "error"


def test_ctrl_c_cancels_the_job(manager: JobManager) -> None:
    with pytest.raises(KeyboardInterrupt), manager.track() as run:
        raise KeyboardInterrupt
    job = get(manager, run.job_id)
    assert job.receipt is not None
    assert (job.status, job.receipt.requested_by, job.receipt.confirmed) == ("cancelled", "Ctrl-C", True)


def test_a_stop_that_nobody_asked_for_cancels_the_job(manager: JobManager) -> None:
    with pytest.raises(JobCancelled), manager.track() as run:
        raise JobCancelled("my own wish")
    job = get(manager, run.job_id)
    assert job.receipt is not None
    assert (job.status, job.receipt.requested_by, job.receipt.reason) == ("cancelled", "its own code", "my own wish")


def test_a_cancel_from_elsewhere_stops_the_block(manager: JobManager) -> None:
    with pytest.raises(JobCancelled, match="cancelled: enough"), manager.track() as run:  # noqa: PT012
        manager.cancel_job(run.job_id, "enough", by="ana")
        ticking(run)
    receipt = get(manager, run.job_id).receipt
    assert receipt is not None
    assert (receipt.how, receipt.confirmed, receipt.requested_by) == ("cooperative", True, "ana")


def test_a_block_that_ends_after_its_cancel_says_so(manager: JobManager) -> None:
    with pytest.raises(JobCancelled), manager.track() as run:  # noqa: PT012
        manager.cancel_job(run.job_id)
        run.result = "too late"
    job = get(manager, run.job_id)
    assert job.receipt is not None
    assert (job.status, job.result) == ("cancelled", None)
    assert (job.receipt.how, job.receipt.late_result) == ("already finished", "too late")


def test_a_deleted_job_stops_its_block(manager: JobManager) -> None:
    with pytest.raises(JobCancelled, match="deleted"), manager.track() as run:  # noqa: PT012
        manager.delete_job(run.job_id)
        ticking(run)
    assert manager.get_job(run.job_id) is None


def test_a_caller_may_only_cancel_what_a_block_runs(manager: JobManager) -> None:
    with manager.track() as run, pytest.raises(JobIsLeased):
        manager.update_job(run.job_id, progress=0.5)


def test_a_lost_lease_stops_the_block_which_changes_nothing_more(manager: JobManager) -> None:
    with pytest.raises(LeaseLost), manager.track() as run:  # noqa: PT012
        until(lambda: get(manager, run.job_id))
        drive(manager.store.renew([(run.job_id, run.token)], 0))
        plan = plan_lost(new_op(), error="gone", failure="{}", crash_loop="{}", crashes_left=None)
        assert drive(manager.store.apply([Write(run.job_id, plan)])).outcomes[0].accepted
        ticking(run)
    assert (get(manager, run.job_id).status, get(manager, run.job_id).error) == ("failed", "gone")


def test_a_lease_is_kept_for_as_long_as_the_block_runs(manager: JobManager) -> None:
    with manager.track() as run:
        time.sleep(2.0)  # more than three leases, in which nothing is said
        assert get(manager, run.job_id).status == "running"
    assert get(manager, run.job_id).status == "completed"


def test_a_result_that_is_not_json_fails_the_job(manager: JobManager) -> None:
    with pytest.raises(InvalidInput), manager.track() as run:
        run.result = object()
    failure = get(manager, run.job_id).failure
    assert failure is not None
    assert failure.kind == "not_serialisable"


# --- keys, ids --------------------------------------------------------------------------------------------------------


def test_the_same_key_takes_up_a_failed_job_where_it_was(manager: JobManager) -> None:
    with pytest.raises(ValueError), manager.track("nightly", key="k") as run:  # noqa: PT012
        for page in run.each(range(5), stage="Pages"):
            run.checkpoint(page)
            if page == 3:
                raise ValueError
    with manager.track("nightly", key="k") as again:
        assert (again.job_id, again.attempt, again.last_checkpoint) == (run.job_id, 2, 3)
        assert list(again.each(range(5), stage="Pages")) == [3, 4]
    assert get(manager, run.job_id).status == "completed"
    with manager.track("nightly", key="k") as new:
        assert new.job_id != run.job_id


def test_a_key_whose_run_lives_is_refused(manager: JobManager) -> None:
    with manager.track(key="k") as run, pytest.raises(JobIsLeased, match="runs on"), manager.track(key="k"):
        pass
    assert get(manager, run.job_id).status == "completed"


def test_a_pending_job_of_its_caller_is_adopted(manager: JobManager) -> None:
    job = manager.create_job(job_type="ingestion", metadata={"a": 1})
    with manager.track("ingestion", job_id=job.job_id) as run:
        assert (run.job_id, run.metadata) == (job.job_id, {"a": 1})
        assert get(manager, job.job_id).driver == "track"
    with pytest.raises(DuplicateJob), manager.track(job_id=job.job_id):
        pass
    with manager.track(job_id="named") as named:
        assert named.job_id == "named"


def test_a_block_is_entered_once(manager: JobManager) -> None:
    block = manager.track()
    with block:
        pass
    with pytest.raises(InvalidInput, match="entered before"), block:
        pass


PROGRAM = """
import sys, time
from milepost import JobManager, Settings
from milepost.stores.opening import open_store
url, namespace = sys.argv[1:]
options = Settings(namespace=namespace, lease=0.6, sweep=0.1, pulse=0.02)
manager = JobManager(open_store(url, namespace=namespace), options=options)
with manager.track("nightly", key="k") as run:
    run.checkpoint({"page": 7})
    print("ready", flush=True)
    time.sleep(60)
"""


def test_the_job_of_a_killed_process_fails_as_lost_and_its_key_takes_it_up(url: str, options: Settings, manager: JobManager) -> None:  # fmt: skip
    if url == "memory://":
        pytest.skip("the memory of a process is gone with it")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url, options.namespace], stdout=subprocess.PIPE, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    with manager.track("nightly", key="k") as run:
        assert run.last_checkpoint == {"page": 7}
    job = get(manager, run.job_id)
    # Its death was seen here (a crash, charged as such), or by a sweep before (a failed job, reopened as an attempt).
    assert (job.status, job.attempt + job.crashes) == ("completed", 2)


# --- the other face ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def amanager(url: str, options: Settings) -> Any:
    """A manager of the asynchronous kind."""
    store = open_store(url, namespace=options.namespace, blocking=False)
    made = AsyncJobManager(store, options=options)
    yield made
    await made.close()


async def test_an_async_block_ends_as_a_blocking_one(amanager: AsyncJobManager) -> None:
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


async def test_a_cancel_reaches_the_next_await_and_becomes_job_cancelled(amanager: AsyncJobManager) -> None:
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
    assert (job.receipt.how, job.receipt.confirmed) == ("task cancelled", True)


async def test_a_cancel_that_comes_when_the_code_awaits_no_more_does_not_cut_off_its_end(
    amanager: AsyncJobManager,
) -> None:
    with pytest.raises(JobCancelled, match="enough"):  # noqa: PT012
        async with amanager.track() as run:
            cancel = plan_cancel(new_op(), by="somebody", why="enough")
            drive(amanager.store.twin(blocking=True).apply([Write(run.job_id, cancel)]))
            run.stop(JobCancelled("enough"))  # as the pulse does, if it has not done so yet
            run.result = "done"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    job = await amanager.get_job(run.job_id)
    assert job is not None
    assert job.receipt is not None
    assert (job.receipt.how, job.receipt.confirmed, job.receipt.late_result) == ("already finished", True, "done")


async def test_a_cancel_of_the_task_itself_stays_one(amanager: AsyncJobManager) -> None:
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
async def test_a_task_that_is_cancelled_again_and_again_still_writes_its_end(
    amanager: AsyncJobManager, sleeps: float
) -> None:
    """As anyio does, at each await until its scope is left."""
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


async def test_a_blocked_event_loop_keeps_its_lease(amanager: AsyncJobManager) -> None:
    async with amanager.track() as run:
        time.sleep(1.5)  # noqa: ASYNC251 - to block is the point
    job = await amanager.get_job(run.job_id)
    assert job is not None
    assert (job.status, job.attempt) == ("completed", 1)


# --- the pulse --------------------------------------------------------------------------------------------------------


def test_reports_wait_while_the_store_is_away_and_the_work_goes_on(options: Settings, start_redis: Any) -> None:
    server = start_redis(appendonly="always")
    options = replace(options, lease=30.0)  # the outage is short beside it, on any machine
    manager = JobManager(open_store(server.url, namespace=options.namespace), options=options)
    with manager.track() as run:
        run.progress(0.2, "before")
        until(lambda: get(manager, run.job_id).progress == 0.2)
        server.kill()
        for number in range(20):
            run.progress(0.2 + number / 100, f"step {number}")
            run.log(f"line {number}")
            time.sleep(0.05)
        server.start()
        until(lambda: get(manager, run.job_id).message == "step 19")
    assert get(manager, run.job_id).status == "completed"
    lines = [
        line["text"] for event in manager.events(run.job_id) if event.kind == "log" for line in event.data["lines"]
    ]
    assert lines == [f"line {number}" for number in range(20)]
    manager.close()


def test_a_run_that_says_nothing_new_makes_no_event(manager: JobManager) -> None:
    with manager.track() as run:
        run.progress(0.4, "same")
        until(lambda: get(manager, run.job_id).progress == 0.4)
        version = get(manager, run.job_id).version
        for _ in range(50):
            run.progress(0.4, "same")
            time.sleep(0.005)
        assert get(manager, run.job_id).version == version
