"""A suspended job frees its worker: its code has returned, and starts again, in the same attempt, when its time has come."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from milepost import AsyncRun, Job, Jobs, JobSuspended, Run
from milepost.core.transitions import plan_suspend
from milepost.core.transitions.change import Const
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing import jobs_under_test
from milepost.testing.conformance.harness import change_with
from tests.waiting import PATIENCE, current, until
from tests.worker import sleeping
from tests.worker.sleeping import NAP

pytestmark = pytest.mark.timing


def kinds(jobs: Jobs, job: Job) -> list[str]:
    """Return the kinds of the events of a job, without log lines and progress."""
    return [event.kind for event in jobs.events(job.job_id) if event.kind not in ("log", "progress", "stage")]


def lines(jobs: Jobs, job: Job) -> list[str]:
    """Return the log of a job."""
    events = [event for event in jobs.events(job.job_id) if event.kind == "log"]
    return [line["text"] for event in events for line in event.data["lines"]]


SEGMENTS: list[str] = []
MAY_SLEEP = threading.Event()
MAY_SLEEP.set()


@contextlib.contextmanager
def kept_asleep(jobs: Jobs, job_id: str) -> Iterator[Job]:
    """Yield a sleeping job that wakes after the block, however late the test comes: its type is paused meanwhile."""
    until(lambda: current(jobs, job_id).status == "running")
    job_type = current(jobs, job_id).job_type
    jobs.set_limit(job_type, paused=True)
    MAY_SLEEP.set()
    until(lambda: current(jobs, job_id).record.get("wake_at"))
    yield current(jobs, job_id)
    jobs.set_limit(job_type)


def sleepy(run: Run) -> Any:
    SEGMENTS.append(run.token)
    with run.stage("Work"):
        run.progress(0.4, "before")
    drawn = run.step("draw", time.time_ns)
    MAY_SLEEP.wait(PATIENCE)
    run.sleep("nap", NAP)
    return [drawn, run.step("draw again", time.time_ns) > drawn, run.attempt]


async def asleep(run: AsyncRun) -> Any:
    SEGMENTS.append(run.token)
    drawn = await run.step("draw", time.time_ns)
    await asyncio.to_thread(MAY_SLEEP.wait, PATIENCE)
    async with asyncio.TaskGroup():
        await run.sleep("nap", NAP)
    return [drawn, await run.step("draw again", time.time_ns) > drawn, run.attempt]


@pytest.mark.parametrize("handler", [sleepy, asleep])
def test_sleep_frees_the_worker_and_continues_the_attempt(jobs: Jobs, handler: Any) -> None:
    SEGMENTS.clear()
    MAY_SLEEP.clear()
    jobs.job("sleeps")(handler)
    with jobs.run_workers(concurrency=1):
        job_id = jobs.submit("sleeps").job_id
        with kept_asleep(jobs, job_id) as suspended:
            pass
        job = jobs.wait(job_id, PATIENCE)
    assert (suspended.status, suspended.attempt, suspended.worker) == ("pending", 1, None)
    assert job.status == "completed", job.error
    assert job.result[1:] == [True, 1]
    assert (job.attempt, job.crashes, len(job.attempts), job.started_at) == (1, 0, 1, suspended.started_at)
    assert kinds(jobs, job) == ["created", "running", "step", "step", "suspended", "running", "step", "completed"]
    assert len(set(SEGMENTS)) == 2
    assert job.completed_at is not None
    assert job.started_at is not None
    assert (job.completed_at - job.started_at).total_seconds() >= 0.3


def test_job_that_waits_for_a_time_says_so_without_a_server(jobs: Jobs) -> None:
    """A manager said that each of these waits for a worker."""

    @jobs.job("sleeps")
    def sleeps(run: Run) -> None:
        run.sleep("night", 3600)

    @jobs.job("fails", max_attempts=2, backoff=lambda attempt: 3600)
    def fails(run: Run) -> None:
        raise OSError("no answer")

    jobs.worker()  # so that a store in memory starts no worker by itself
    with jobs.run_workers():
        asleep, failed = jobs.submit(sleeps).job_id, jobs.submit(fails).job_id
        until(lambda: current(jobs, asleep).record.get("wake_at") and current(jobs, failed).not_before)
    later = jobs.submit(sleeps.options(not_before=datetime.now(UTC) + timedelta(hours=1))).job_id
    assert current(jobs, asleep).activity.startswith("Suspended until ")
    assert current(jobs, failed).activity.startswith("Next attempt ")
    assert current(jobs, later).activity.startswith("Starts ")
    assert current(jobs, jobs.submit(sleeps).job_id).activity == "Waiting for a worker"


@pytest.mark.parametrize("is_async", [False, True])
def test_suspension_is_written_when_the_code_has_returned(jobs: Jobs, is_async: bool) -> None:
    """I28: the code of two segments never overlaps."""
    inside, leave = threading.Event(), threading.Event()
    active: list[int] = []
    most: list[int] = []

    def enter() -> None:
        active.append(1)
        most.append(len(active))

    def unwind(run: Run) -> None:
        inside.set()
        assert leave.wait(PATIENCE)
        with pytest.raises(JobSuspended):
            run.checkpoint(1)
        active.pop()

    def handler(run: Run) -> str:
        enter()
        try:
            run.sleep("nap", NAP)
        finally:
            if not leave.is_set():
                unwind(run)
            else:
                active.pop()
        return "slept"

    async def ahandler(run: AsyncRun) -> str:
        enter()
        try:
            await run.sleep("nap", NAP)
        finally:
            if not leave.is_set():
                await asyncio.to_thread(unwind, run)
            else:
                active.pop()
        return "slept"

    jobs.job("unwinds")(ahandler if is_async else handler)
    with jobs.run_workers(concurrency=2):
        job_id = jobs.submit("unwinds").job_id
        assert inside.wait(PATIENCE)
        deadline = time.monotonic() + 0.2
        until(lambda: time.monotonic() > deadline)
        assert current(jobs, job_id).status == "running", "its lease lives until its code has returned"
        leave.set()
        assert jobs.wait(job_id, PATIENCE).result == "slept"
    assert most == [1, 1]


def test_segments_overlap_if_the_suspension_is_written_before_the_code_has_returned(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    leave = threading.Event()
    active: list[int] = []
    most: list[int] = []
    suspend = Run._suspend

    def too_early(run: Run, reason: JobSuspended, call: str) -> None:
        plan = plan_suspend(new_operation_id(), run.token, {}, wake_at=reason.wake_at, ran=0)
        run_sync(jobs.store.with_blocking(blocking=True).apply([Write(run.job_id, plan)]))
        suspend(run, reason, call)

    @jobs.job
    def unwinds(run: Run) -> None:
        active.append(1)
        most.append(len(active))
        try:
            run.sleep("nap", NAP)
            leave.wait(PATIENCE)
        finally:
            leave.wait(PATIENCE)
            active.pop()

    monkeypatch.setattr(Run, "_suspend", too_early)
    with jobs.run_workers(concurrency=2):
        jobs.submit(unwinds)
        until(lambda: most == [1, 2])
        leave.set()


def test_all_kept_results_are_there_when_a_suspended_job_continues(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: the results of several maps were sent one part a heartbeat, and jobs that continued did their items again."""
    store, calls = jobs.store, list[tuple[int, int]]()
    put = store.kv_put

    async def slow_put(key: str, *args: Any, **more: Any) -> Any:
        if key.startswith("results/"):
            threading.Event().wait(0.1)
        return await put(key, *args, **more)

    monkeypatch.setattr(store, "kv_put", slow_put)

    @jobs.job
    def maps(run: Run, number: int) -> int:
        def long_text(item: int) -> str:
            calls.append((number, item))
            threading.Event().wait(0.02)
            return "x" * 20_000

        texts = run.map(long_text, range(8))
        run.sleep("soon", 0.01)
        return len(texts)

    with jobs.run_workers():
        for job in [jobs.submit(maps, number=number) for number in range(4)]:
            assert jobs.wait(job.job_id, 60).result == 8
    assert len(calls) == 4 * 8


def test_swallowed_suspension_suspends_all_the_same(jobs: Jobs) -> None:
    @jobs.job
    def swallows(run: Run) -> str:
        try:
            run.sleep("nap", NAP)
        except JobSuspended:
            return "swallowed"
        return "slept"

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(swallows).job_id, PATIENCE)
    assert job.result == "slept"
    assert any("caught JobSuspended" in line for line in lines(jobs, job))


def test_error_while_unwinding_ends_the_attempt(jobs: Jobs) -> None:
    @jobs.job
    def breaks(run: Run) -> None:
        try:
            run.sleep("nap", 60)
        finally:
            raise LookupError("while unwinding")

    with jobs.run_workers():
        job = jobs.wait(jobs.submit(breaks).job_id, PATIENCE)
    assert (job.status, job.error) == ("failed", "while unwinding")


def test_cancel_while_unwinding_wins(jobs: Jobs) -> None:
    inside, leave = threading.Event(), threading.Event()

    @jobs.job
    def unwinds(run: Run) -> None:
        try:
            run.sleep("nap", 60)
        finally:
            inside.set()
            assert leave.wait(PATIENCE)

    with jobs.run_workers():
        job_id = jobs.submit(unwinds).job_id
        assert inside.wait(PATIENCE)
        jobs.cancel_job(job_id)
        leave.set()
        until(lambda: (receipt := current(jobs, job_id).receipt) is not None and receipt.confirmed)
    assert current(jobs, job_id).status == "cancelled"


def test_cancelled_sleeper_never_wakes_and_a_retry_keeps_its_deadline(jobs: Jobs) -> None:
    starts: list[int] = []
    MAY_SLEEP.clear()

    @jobs.job
    def sleeps(run: Run) -> str:
        starts.append(run.attempt)
        MAY_SLEEP.wait(PATIENCE)
        run.sleep("nap", NAP)
        return "slept"

    with jobs.run_workers():
        job_id = jobs.submit(sleeps).job_id
        with kept_asleep(jobs, job_id):
            jobs.cancel_job(job_id)
        job = current(jobs, job_id)
        assert (job.status, job.receipt and job.receipt.confirmed) == ("cancelled", True)
        jobs.retry_job(job_id)
        assert jobs.wait(job_id, PATIENCE).result == "slept"
    assert starts[:2] == [1, 2]


@pytest.mark.parametrize("handler", [sleeping.slow_in_thread, sleeping.slow_in_child])
def test_timeout_while_unwinding_decides_about_another_attempt(jobs: Jobs, handler: Any) -> None:
    """The retry rules saw the suspension instead of the timeout, which came while the code of the attempt ended."""
    jobs.handlers.add(handler)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit(handler.job_type).job_id, PATIENCE)
    assert (job.status, job.attempt) == ("failed", 1), job.error
    assert job.failure is not None
    assert job.failure.kind == "timeout"


def test_time_asleep_does_not_count_for_the_timeout(jobs: Jobs) -> None:
    @jobs.job(timeout=4.0)
    def sleeps(run: Run) -> str:
        for night in range(3):
            run.sleep(f"night:{night}", 1.5)
        return "rested"

    with jobs.run_workers():
        assert jobs.wait(jobs.submit(sleeps).job_id, PATIENCE).result == "rested"


def test_time_of_all_segments_counts_for_the_timeout(jobs: Jobs) -> None:
    MAY_SLEEP.clear()

    @jobs.job(timeout="1h")
    def works(run: Run) -> None:
        MAY_SLEEP.wait(PATIENCE)
        run.sleep("nap", NAP)
        while True:
            run.check()
            time.sleep(0.01)

    with jobs.run_workers():
        job_id = jobs.submit(works).job_id
        with kept_asleep(jobs, job_id):
            nearly_all = change_with("op000001", ("set", "ran", Const("3599900000")))
            run_sync(jobs.store.with_blocking(blocking=True).apply([Write(job_id, nearly_all)]))
        job = jobs.wait(job_id, PATIENCE)
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.record["segments"]) == ("failed", "timeout", "1")


@pytest.mark.parametrize("is_async", [False, True])
def test_sleeper_in_a_child_process(jobs: Jobs, is_async: bool) -> None:
    jobs.handlers.add(sleeping.sleeps)
    jobs.handlers.add(sleeping.asleep)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit("asleep.child" if is_async else "sleeps.child").job_id, PATIENCE)
    assert (job.result, job.attempt, job.crashes) == ("slept", 1, 0)
    assert kinds(jobs, job) == ["created", "running", "step", "suspended", "running", "completed"]


def test_sleeper_of_drained_jobs_wakes_on_a_moved_clock() -> None:
    app = Jobs("memory://")
    app.job("sleeps")(sleepy)
    app.job("asleep")(asleep)
    with jobs_under_test(app) as jobs:
        made = [jobs.submit(name).job_id for name in ("sleeps", "asleep")]
        jobs.drain()
        assert [current(jobs, job_id).status for job_id in made] == ["pending", "pending"]
        jobs.clock.advance(NAP)
        jobs.drain()
        assert [current(jobs, job_id).status for job_id in made] == ["completed", "completed"]
