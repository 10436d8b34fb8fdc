"""A PostgreSQL store behind PgBouncer in transaction mode, which gives each transaction another connection."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg
import pytest

from milepost import Jobs, Run, Settings
from milepost.stores.postgres import PostgresStore
from milepost.testing.conformance.claims import Dispatching, Waking
from milepost.testing.conformance.concurrency import Concurrency, Promises
from milepost.testing.conformance.events import Feed
from milepost.testing.conformance.harness import Factory
from milepost.testing.conformance.kv import KeyValues, StoreItself
from milepost.testing.conformance.recovery import Sweeping
from tests.pgbouncer import PgBouncer
from tests.postgres_server import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.service("postgresql", "pgbouncer")]


@pytest.fixture(scope="module")
def pooler(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """Yield a PgBouncer that follows prepared statements."""
    with PgBouncer(postgres_server) as pooler:
        yield pooler


class TestStoreBehindPgBouncer(Dispatching, Waking, Concurrency, Promises, Feed, Sweeping, KeyValues, StoreItself):
    """The scenarios in which several callers meet, and those of the store as a whole."""

    @pytest.fixture
    def clock(self) -> None:
        """Return None: the server's own clock is used."""

    @pytest.fixture
    def blocking(self, postgres_server: PostgresServer, pooler: PgBouncer) -> Factory:
        return _factory(postgres_server, pooler, blocking=True)

    @pytest.fixture
    def asynchronous(self, postgres_server: PostgresServer, pooler: PgBouncer) -> Factory:
        return _factory(postgres_server, pooler, blocking=False)


def _factory(server: PostgresServer, pooler: PgBouncer, *, blocking: bool) -> Factory:
    numbers = itertools.count(1)
    return lambda: PostgresStore(pooler.url, namespace=server.emptied(f"conformance{next(numbers)}"), blocking=blocking)


@pytest.mark.parametrize("prepared", [200, 0])
def test_jobs_from_end_to_end(postgres_server: PostgresServer, prepared: int) -> None:
    """A pooler that does not follow prepared statements loses them; they are then no longer used."""
    settings = Settings(namespace=postgres_server.emptied("pooled"))
    with PgBouncer(postgres_server, prepared=prepared) as pooler:
        submitter, worker = Jobs(pooler.url, options=settings), Jobs(pooler.url, options=settings)

        @worker.job("add")
        def add(run: Run, a: int, b: int) -> int:
            for n in range(10):
                run.checkpoint({"a": a + n})
            return a + b

        with worker.run_workers(concurrency=4):
            jobs = [submitter.submit("add", {"a": n, "b": 1}) for n in range(20)]
            with psycopg.connect(pooler.url, prepare_threshold=None) as connection:
                jobs.append(submitter.using(connection).submit("add", {"a": 20, "b": 1}))
            results = [submitter.wait(job.job_id, timeout=60).result for job in jobs]
        assert results == [n + 1 for n in range(21)]
        submitter.close()
        worker.close()
