"""In memory, a submit for which there is no worker starts one in a thread of the process."""

from __future__ import annotations

import os
from typing import Any

import pytest

from milepost import AsyncJobs, AsyncRun, InvalidInputError, Jobs, JobStatus, Run, Settings
from tests.forking import fork
from tests.waiting import PATIENCE

pytestmark = pytest.mark.timing


def test_memory_worker_starts_at_first_submit() -> None:
    jobs = Jobs("memory://", options=Settings(grace=0.5))

    @jobs.job("where")
    def where(run: Run) -> Any:
        return run.job_type

    assert jobs.workers() == []
    job = jobs.submit(where)
    assert jobs.wait(job.job_id, PATIENCE).result == "where"
    assert len(jobs.workers()) == 1
    jobs.close()
    assert jobs.workers() == []


def test_memory_worker_runs_handlers_added_later() -> None:
    """In a notebook, cells define handlers one after the other, and are run again."""
    jobs = Jobs("memory://", options=Settings(grace=0.5))

    def define(name: str, result: str) -> None:
        @jobs.job(name)
        def same(run: Run) -> str:
            return result

    define("first", "old")
    assert jobs.wait(jobs.submit("first").job_id, PATIENCE).result == "old"
    define("second", "second")
    assert jobs.wait(jobs.submit("second").job_id, PATIENCE).result == "second"
    define("first", "new")
    assert jobs.wait(jobs.submit("first").job_id, PATIENCE).result == "new"
    jobs.close()
    assert jobs.wait(jobs.submit("second").job_id, PATIENCE).result == "second"
    jobs.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_memory_worker_starts_in_a_forked_process() -> None:
    """Regression: the copy of the parent's worker counted as one, so that no job of the child ever ran."""
    jobs = Jobs("memory://", options=Settings(grace=0.5))

    @jobs.job("ok")
    def ok(run: Run) -> str:
        return "done"

    assert jobs.wait(jobs.submit(ok), PATIENCE).result == "done"
    assert fork(lambda: jobs.wait(jobs.submit(ok), PATIENCE)) == 0
    jobs.close()


def a_handler(run: Run) -> None:
    """Do nothing, as a handler with a registered name that a child process does not find."""


def test_memory_worker_starts_after_end_of_other_workers() -> None:
    """A job in memory that was submitted after the end of `with jobs.run_workers()` never ran, and `wait` hung."""
    jobs = Jobs("memory://", options=Settings(grace=0.5))
    handler = jobs.job("ok")(lambda run: "done")
    with jobs.run_workers():
        assert jobs.wait(jobs.submit(handler).job_id, PATIENCE).result == "done"
    made = jobs.worker(max_jobs=1)
    waiting = jobs.submit(handler)
    assert jobs.get_job(waiting.job_id).status is JobStatus.PENDING  # it is for the worker that was made
    assert made.run() == 0
    assert jobs.wait(jobs.submit(handler).job_id, PATIENCE).result == "done"
    jobs.close()


async def test_async_memory_worker_starts_after_end_of_other_workers() -> None:
    """Likewise of `async with`."""
    jobs = AsyncJobs("memory://", options=Settings(grace=0.5))

    async def done(run: AsyncRun) -> str:
        return "done"

    handler = jobs.job("ok")(done)
    async with jobs.run_workers():
        assert (await jobs.wait((await jobs.submit(handler)).job_id, PATIENCE)).result == "done"
    assert (await jobs.wait((await jobs.submit(handler)).job_id, PATIENCE)).result == "done"
    await jobs.close()


def test_memory_submit_raises_if_worker_cannot_start() -> None:
    jobs = Jobs("memory://", options=Settings(grace=0.5))
    jobs.job("hidden", isolation="process")(a_handler)
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="is not the decorated handler"):
            jobs.submit("hidden")
    jobs.close()
