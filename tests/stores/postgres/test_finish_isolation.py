"""Results that commit with a transaction of the handler, where jobs run in child processes and where lost jobs run again."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from milepost import Jobs, Run, Settings
from tests.postgres_server import PostgresServer
from tests.worker.test_suspects import make_suspect

pytestmark = pytest.mark.service("postgresql")


@pytest.fixture
def jobs(postgres_server: PostgresServer, postgres_url: str) -> Iterator[Jobs]:
    """Yield jobs, and an empty table of orders."""
    with psycopg.connect(postgres_url) as db:
        db.execute("CREATE TABLE IF NOT EXISTS orders (number int)")
        db.execute("TRUNCATE orders")
    jobs = Jobs(postgres_url, options=Settings(namespace=postgres_server.emptied("finish")))
    yield jobs
    jobs.close()


def orders(url: str) -> list[int]:
    """Return the committed orders."""
    with psycopg.connect(url) as db:
        return [number for (number,) in db.execute("SELECT number FROM orders ORDER BY number")]


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


def test_crash_suspects_finish_in_transactions(jobs: Jobs, postgres_url: str) -> None:
    """Regression: jobs that were lost together ran in a child process next, which failed those that finish with `using`."""
    jobs.handlers.add(finish_suspected)
    with jobs.run_workers():
        pass
    lost = jobs.submit("suspected", metadata={"url": postgres_url})
    make_suspect(jobs, lost)
    with jobs.run_workers():
        job = jobs.wait(lost, timeout=60)
    assert (job.error, job.result) == (None, 1)
    assert orders(postgres_url) == [1]
