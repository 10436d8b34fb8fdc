"""Results that commit with a transaction of the handler, where jobs run in child processes and where lost jobs run again."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from milepost import AsyncRun, Jobs, Run
from tests.stores.postgres.orders import orders
from tests.waiting import PATIENCE
from tests.worker.test_suspects import make_suspect

pytestmark = pytest.mark.service("postgresql")


@Jobs("memory://").job("isolated", isolation="process", max_attempts=1)
def finish_in_child(run: Run) -> None:
    """Write a checkpoint, or else finish, in a transaction of a child process."""
    with psycopg.connect(run.metadata["url"]) as db:
        db.execute("INSERT INTO orders VALUES (1)")
        if run.metadata["do"] == "checkpoint":
            run.checkpoint(1, using=db)
        run.finish(None, using=db)


@pytest.mark.parametrize("do", ["checkpoint", "finish"])
def test_using_is_refused_in_a_child_process(jobs: Jobs, postgres_url: str, do: str) -> None:
    """The child has no connection to the store; its code gets the remedy, and its transaction is rolled back."""
    jobs.handlers.add(finish_in_child)
    with jobs.run_workers():
        job = jobs.wait(jobs.submit("isolated", metadata={"url": postgres_url, "do": do}), timeout=60)
    assert job.status == "failed"
    assert 'using: a handler with isolation="process" has no connection to the store; use isolation="thread"' in (
        job.error or ""
    )
    assert orders(postgres_url) == []


@Jobs("memory://").job("suspected", max_attempts=1)
def finish_suspected(run: Run) -> int:
    """Finish in a transaction."""
    with psycopg.connect(run.metadata["url"]) as db:
        db.execute("INSERT INTO orders VALUES (1)")
        return run.finish(1, using=db)


@Jobs("memory://").job("suspected-async", max_attempts=1)
async def afinish_suspected(run: AsyncRun) -> int:
    """Finish in an async transaction."""
    async with await psycopg.AsyncConnection.connect(run.metadata["url"]) as db:
        await db.execute("INSERT INTO orders VALUES (1)")
        return await run.finish(1, using=db)


@pytest.mark.parametrize("handler", [finish_suspected, afinish_suspected])
def test_crash_suspects_finish_in_transactions(jobs: Jobs, postgres_url: str, handler: Any) -> None:
    """Regression: jobs that were lost together ran in a child process next, which failed those that finish with `using`."""
    job_type = jobs.handlers.add(handler).job_type
    with jobs.run_workers():
        pass
    lost = jobs.submit(job_type, metadata={"url": postgres_url})
    make_suspect(jobs, lost)
    with jobs.run_workers():
        job = jobs.wait(lost, timeout=60)
    assert (job.error, job.result, job.attempt) == (None, 1, 1)
    assert orders(postgres_url) == [1]


@Jobs("memory://").job("bystander", max_attempts=1)
def count(run: Run) -> int:
    """Write in no transaction of its own."""
    return 1


def test_crash_suspects_without_transactions_run_beside_other_jobs(jobs: Jobs) -> None:
    """Regression: a worker with a lost job started nothing until its longest job had ended, then one lost job at a time."""
    may_end = threading.Event()

    @jobs.job("long")
    def long(run: Run) -> None:
        assert may_end.wait(PATIENCE)

    jobs.handlers.add(count)
    with jobs.run_workers():
        pass
    lost = jobs.submit("bystander")
    make_suspect(jobs, lost)
    first = jobs.submit("long", priority=9)
    with jobs.run_workers(concurrency=2):
        try:
            done = jobs.wait(lost, PATIENCE)
            assert jobs.get_job(first.job_id).status == "running"
        finally:
            may_end.set()
    assert (done.error, done.result) == (None, 1)
