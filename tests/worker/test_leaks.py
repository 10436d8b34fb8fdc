"""A worker keeps nothing of ended runs: no run, no thread, no file descriptor, no memory."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import psutil
import pytest

from milepost import Jobs, Run
from milepost.stores.sync_bridge import run_sync
from milepost.worker.execution import Execution
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timing

TYPES = ("leak-thread", "leak-task", "leak-raises", "leak-waits")
AT_ONCE = 8
ROUND = 50
ROUNDS = 5
BYTES = 1000
"""What may be left of a job: its id, in bounded caches. A record, or a run, is more."""


class Kept(NamedTuple):
    """The resources of this process."""

    runs: int
    threads: int
    files: int
    memory: int


def kept() -> Kept:
    """Return the resources of this process."""
    gc.collect()
    # By its type: other packages' stand-ins make what they stand for when they are asked for their class.
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), Run | Execution)]
    # Code of other tests without cancellation points may still run in this process.
    runs = sum((thing.job_type if isinstance(thing, Run) else thing.job.job_type) in TYPES for thing in found)
    return Kept(runs, threading.active_count(), psutil.Process().num_fds(), tracemalloc.get_traced_memory()[0])


@contextmanager
def traced() -> Iterator[None]:
    """Trace the memory that Python allocates."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.fixture
def busy(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Return handlers that use every part of a run and end in every way."""
    # pytest keeps the frames in which rubbish that complains was found, which may be those of a run.
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)

    @jobs.job("leak-thread")
    def thread(run: Run, count: int = 3) -> int:
        with run.stage("Counting", total=count, unit="item"):
            for number in run.each(range(count)):
                run.log(f"item {number}")
        run.checkpoint({"count": count})
        return count

    @jobs.job("leak-task")
    async def task(run: Run, count: int = 3) -> int:
        async for _ in run.each(range(count)):
            await asyncio.sleep(0)
        await run.acheckpoint({"count": count})
        return count

    @jobs.job("leak-raises", max_attempts=1)
    def raises(run: Run) -> None:
        raise ValueError("as planned")

    @jobs.job("leak-waits")
    async def waits(run: Run) -> None:
        await asyncio.Event().wait()  # a sleep that is cancelled stays in the loop's heap for a while, with its context

    return jobs


def a_round(jobs: Jobs) -> int:
    """Run some jobs of each type to their ends; return how many."""
    made = [
        job_id
        for name in ("leak-thread", "leak-task", "leak-raises")
        for job_id in jobs.submit_many(name, [{}] * ROUND)
    ]
    for job_id in jobs.submit_many("leak-waits", [{}] * AT_ONCE):
        until(lambda job_id=job_id: status(jobs, job_id) == "running")
        jobs.cancel_job(job_id)
        made.append(job_id)
    until(
        lambda: not any(n for (_, state), n in run_sync(jobs.store.counts()).items() if state in ("pending", "running"))
    )
    return len(made)


def status(jobs: Jobs, job_id: str) -> str:
    """Return the status of a job."""
    job = jobs.get_job(job_id)
    assert job is not None
    return job.status.value


def test_worker_keeps_nothing_of_ended_runs(busy: Jobs) -> None:
    is_memory = busy.store.url.startswith("memory:")  # its records and feed are in this process
    with nullcontext() if is_memory else traced(), busy.run_workers(concurrency=AT_ONCE):
        a_round(busy)
        until(lambda: kept().runs == 0)
        before = kept()
        many = sum(a_round(busy) for _ in range(ROUNDS))
        until(lambda: kept().runs == 0)
        after = kept()
    assert after.threads <= before.threads + 2 * AT_ONCE  # pools fill up; a leak would have left hundreds
    assert after.files <= before.files + AT_ONCE
    if not is_memory:
        assert after.memory - before.memory < many * BYTES


def test_ended_run_is_freed_without_garbage_collector(jobs: Jobs) -> None:
    ran: list[weakref.ref[Run]] = []

    @jobs.job("leak-noted")
    async def noted(run: Run) -> None:
        ran.append(weakref.ref(run))

    gc.collect()
    gc.disable()  # a circle of references costs a fifth of what a short job does
    try:
        with jobs.run_workers():
            for _ in range(3):
                jobs.wait(jobs.submit("leak-noted").job_id, PATIENCE)
            assert len(ran) == 3
            until(lambda: not any(run() for run in ran))
    finally:
        gc.enable()
