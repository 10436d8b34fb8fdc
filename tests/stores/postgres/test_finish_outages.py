"""Transactions of handlers whose connection is lost: before the commit, or with the answer to it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from milepost import AsyncRun, Job, Jobs, Run
from tests.chaos.proxy import Proxy
from tests.postgres_server import PostgresServer, on_each_postgres
from tests.stores.postgres.conftest import through
from tests.stores.postgres.orders import orders
from tests.waiting import PATIENCE

pytestmark = on_each_postgres


def run(jobs: Jobs, target: Any) -> Job:
    """Run a job to its end."""
    with jobs.run_workers():
        return jobs.wait(jobs.submit(target), timeout=PATIENCE)


def test_result_whose_commit_was_not_answered_completes_the_job(
    jobs: Jobs, proxy: Proxy, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    @jobs.job("ship", max_attempts=3)
    def ship(run: Run) -> int:
        with psycopg.connect(through(proxy)) as db:
            db.execute("INSERT INTO orders VALUES (1)")
            run.finish(1, using=db)
            proxy.lose()
            db.commit()
        return 1

    job = run(jobs, ship)
    assert proxy.lost == 1
    assert (job.status, job.result, job.error, job.attempt) == ("completed", 1, None, 1)
    assert orders(postgres_url) == [1]
    assert "raised after its result was committed" in caplog.text


def test_async_result_whose_commit_was_not_answered_completes_the_job(
    jobs: Jobs, proxy: Proxy, postgres_url: str
) -> None:
    @jobs.job("ship", max_attempts=3)
    async def ship(run: AsyncRun) -> int:
        async with await psycopg.AsyncConnection.connect(through(proxy)) as db:
            await db.execute("INSERT INTO orders VALUES (1)")
            await run.finish(1, using=db)
            proxy.lose()
            await db.commit()
        return 1

    job = run(jobs, ship)
    assert proxy.lost == 1
    assert (job.status, job.result, job.error, job.attempt) == ("completed", 1, None, 1)
    assert orders(postgres_url) == [1]


def test_checkpoint_whose_commit_was_not_answered_is_that_of_the_next_attempt(
    jobs: Jobs, proxy: Proxy, postgres_url: str
) -> None:
    seen: list[Any] = []

    @jobs.job("ship", max_attempts=3, backoff=lambda attempt: 0)
    def ship(run: Run) -> str:
        seen.append(run.last_checkpoint)
        if run.last_checkpoint is None:
            with psycopg.connect(through(proxy)) as db:
                db.execute("INSERT INTO orders VALUES (1)")
                run.checkpoint("shipped", using=db)
                proxy.lose()
                db.commit()
        return "done"

    job = run(jobs, ship)
    assert proxy.lost == 1
    assert (job.status, job.result, job.attempt) == ("completed", "done", 2)
    assert seen == [None, "shipped"]
    assert orders(postgres_url) == [1]


def test_connection_that_is_lost_before_the_commit_leaves_nothing(
    jobs: Jobs, postgres_server: PostgresServer, postgres_url: str
) -> None:
    @jobs.job("ship", max_attempts=3, backoff=lambda attempt: 0)
    def ship(run: Run) -> int:
        with psycopg.connect(postgres_url) as db:
            db.execute("INSERT INTO orders VALUES (%s)", (run.attempt,))
            run.finish(run.attempt, using=db)
            if run.attempt == 1:
                postgres_server.execute(f"SELECT pg_terminate_backend({db.info.backend_pid}, 60000)")
        return run.attempt

    job = run(jobs, ship)
    assert (job.status, job.result, job.attempt) == ("completed", 2, 2)
    assert orders(postgres_url) == [2]


def test_submit_whose_commit_was_not_answered_exists_with_its_order(
    jobs: Jobs, proxy: Proxy, postgres_url: str
) -> None:
    @jobs.job("ship")
    def ship(run: Run) -> None: ...

    with psycopg.connect(through(proxy)) as db:
        db.execute("INSERT INTO orders VALUES (1)")
        jobs.using(db).submit(ship)
        proxy.lose()
        with pytest.raises(psycopg.OperationalError):
            db.commit()
    assert orders(postgres_url) == [1]
    assert jobs.count_jobs("ship") == 1
