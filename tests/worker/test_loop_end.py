"""A worker stops, or its event loop ends, as at the end of `asyncio.run`: the worker gives its jobs back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from milepost import AsyncRun, Job, JobReleased, Jobs, Run
from milepost.core.errors import OutcomeUnknownError, StoreUnavailableError
from milepost.stores.protocol import ApplyResult, Claim, Write
from milepost.worker import Worker, execution, store_requests
from milepost.worker.handlers import Handlers
from tests.waiting import current, until
from tests.worker.conftest import MakeJobs

pytestmark = pytest.mark.timing


handlers = Handlers()


@handlers.job("waits")
async def waits(run: AsyncRun) -> None:
    """Wait until stopped."""
    await asyncio.Event().wait()


@handlers.job("loops")
def loops(run: Run) -> None:
    """Look for a stop until there is one."""
    while True:
        run._wait_in_place(0.01)
        run.check()


@handlers.job("counts", isolation="process")
def counts(run: Run, path: str) -> None:
    """Write checkpoints until stopped, and tidy up."""
    number = 0
    try:
        while True:
            number += 1
            run.checkpoint(number)
    except JobReleased:
        Path(path).write_text("tidied up")
        raise


def serve_until(worker: Worker, is_reached: Callable[[], bool]) -> None:
    """Run a worker in an event loop that ends once a state is reached."""

    async def main() -> None:
        task = asyncio.create_task(worker.serve())
        await asyncio.to_thread(until, is_reached)
        assert not task.done()

    asyncio.run(main())


@pytest.mark.parametrize("name", ["waits", "loops"])
def test_running_job_is_given_back_at_the_end_of_the_loop(jobs: Jobs, name: str) -> None:
    """Regression: it was running until its lease ended."""
    jobs.handlers.add(handlers[name])
    worker = jobs.worker()
    job = jobs.submit(name)
    serve_until(worker, lambda: current(jobs, job).status == "running")
    left = current(jobs, job)
    assert (left.status, left.attempt, len(left.attempts), left.error) == ("pending", 0, 1, None)
    assert jobs.workers() == []


@pytest.mark.parametrize("state", ["running", "at a checkpoint"])
def test_job_of_a_process_is_given_back_at_the_end_of_the_loop(jobs: Jobs, tmp_path: Path, state: str) -> None:
    """The worker is starting the process, or within one of its messages. Code that runs can tidy up."""
    jobs.handlers.add(handlers["counts"])
    worker, file = jobs.worker(), tmp_path / "file"
    job = jobs.submit("counts", {"path": str(file)})
    is_begun = state != "running"
    serve_until(
        worker,
        lambda: current(jobs, job).checkpoint_at is not None if is_begun else current(jobs, job).status == "running",
    )
    left = current(jobs, job)
    assert (left.status, left.attempt, left.crashes, left.error) == ("pending", 0, 0, None)
    assert not is_begun or file.read_text() == "tidied up"
    assert jobs.workers() == []


@pytest.mark.parametrize("lost", ["reply", "large values"])
def test_job_of_a_claim_without_reply_is_given_back_at_the_end_of_the_loop(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The store has started the job, and the worker does not have it yet."""
    is_lost, kind = threading.Event(), type(jobs.store)
    apply, with_large_values = kind.apply, store_requests.with_large_values

    async def lose() -> None:
        if not is_lost.is_set():
            is_lost.set()
            await asyncio.Event().wait()

    async def apply_and_lose(store: Any, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        applied = await apply(store, writes, claim)
        if applied.claimed:
            await lose()
        return applied

    async def read_and_lose(store: Any, job: Job) -> Job:
        await lose()
        return await with_large_values(store, job)

    if lost == "reply":
        monkeypatch.setattr(kind, "apply", apply_and_lose)
    else:
        monkeypatch.setattr(store_requests, "with_large_values", read_and_lose)
    jobs.handlers.add(handlers["waits"])
    worker = jobs.worker()
    job = jobs.submit("waits")
    serve_until(worker, is_lost.is_set)
    left = current(jobs, job)
    assert (left.status, left.attempt, left.crashes, left.error) == ("pending", 0, 0, None)


def test_claim_without_reply_is_repeated_when_an_outage_ends_during_the_drain(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: a late copy of the claim started a job after its worker had ended, which was charged with a crash."""
    is_lost, is_down, kind = threading.Event(), threading.Event(), type(jobs.store)
    apply = kind.apply

    async def apply_or_fail(store: Any, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        if is_down.is_set():
            raise StoreUnavailableError("down")
        applied = await apply(store, writes, claim)
        if not is_lost.is_set() and any(job.job_type == "never" for job in applied.claimed):
            is_down.set()
            is_lost.set()
            raise OutcomeUnknownError("no reply")
        return applied

    monkeypatch.setattr(kind, "apply", apply_or_fail)

    @jobs.job("stopped")
    def stopped(run: Run) -> None:
        try:
            while True:
                run._wait_in_place(0.01)
                run.check()
        finally:
            is_down.clear()

    @jobs.job("never")
    def never(run: Run) -> None:
        raise AssertionError("it is claimed only")

    with jobs.run_workers(concurrency=2):
        job = jobs.submit(stopped)
        until(lambda: current(jobs, job).status == "running")
        unknown = jobs.submit(never)
        until(is_lost.is_set)
    for left in (current(jobs, job), current(jobs, unknown)):
        assert (left.status, left.attempt, left.crashes, left.error) == ("pending", 0, 0, None)


def test_job_that_has_not_started_is_given_back_at_the_end_of_the_loop(
    make_jobs: MakeJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is reading the budgets of the job. It does not wait for the grace period."""
    is_reading = threading.Event()

    async def read_budgets(*arguments: object) -> None:
        is_reading.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(execution, "refusal_at_start", read_budgets)
    jobs = make_jobs(grace=600)
    jobs.handlers.add(handlers["waits"])
    worker = jobs.worker()
    job = jobs.enqueue("waits", budget={"usd": 1})
    serve_until(worker, is_reading.is_set)
    left = current(jobs, job)
    assert (left.status, left.attempt, left.error) == ("pending", 0, None)


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
