"""The subqueues of partitions on PostgreSQL: what a claim reads of them, what a transaction of a caller adds, what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import psycopg
import pytest

from milepost.core import transitions as plans
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.postgres import PostgresStore
from milepost.stores.protocol import Claim, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import LONG
from milepost.testing.conformance.limits import limited_job
from tests.postgres_server import PostgresServer
from tests.stores.postgres.rows_read import rows_read

pytestmark = pytest.mark.service("postgresql")
PARTITIONS = 300
RING = "t\x1ft"


@pytest.fixture
def store(postgres_server: PostgresServer) -> Iterator[PostgresStore]:
    store = PostgresStore(postgres_server.url(), namespace=postgres_server.emptied("subqueues"))
    yield store
    run_sync(store.close())


def create(store: PostgresStore, *names: str, **fields: str) -> None:
    """Create one job in each of these partitions, with its name."""
    writes = [Write(name, plans.plan_create(limited_job(name, **fields), new_operation_id())) for name in names]
    run_sync(store.apply(writes))


def claim(store: PostgresStore, most: int = 1) -> list[str]:
    """Start jobs and return their ids."""
    starts = tuple(plans.plan_start(new_operation_id(), nonce=new_nonce(), lease=LONG, worker="w") for _ in range(most))
    return [
        job.job_id for job in run_sync(store.apply([], Claim("w", {"t": None}, starts, new_operation_id()))).claimed
    ]


def test_claim_reads_only_the_first_partitions(store: PostgresStore, postgres_server: PostgresServer) -> None:
    create(store, *(f"p{number:03}" for number in range(PARTITIONS)))
    assert claim(store) == ["p000"]
    ring: dict[str, Any] = {"rings": [RING], "full": []}
    rows = partial(rows_read, store, postgres_server.url(), settings=("patience", "claim_plans"))
    assert rows("first_subqueues", **ring, most=2) == 2
    assert rows("claimable_in", **ring) <= 2
    assert rows("rings", queues=["t"]) <= 2
    assert rows("arrivals_take", rings=[RING]) == 1, "the ring itself"
    assert claim(store, 2) == ["p001", "p002"]


def test_partition_of_a_callers_transaction_enters_at_its_commit(
    store: PostgresStore, postgres_server: PostgresServer
) -> None:
    create(store, "a")
    with psycopg.connect(postgres_server.url()) as connection:
        inside = store.within(connection)
        run_sync(inside.apply([Write("a2", plans.plan_create(limited_job("a"), new_operation_id()))]))
        assert claim(store) == ["a"], "the last job of the partition, as far as others see"
        assert claim(store) == []
        connection.commit()
    assert run_sync(store.wait_for_work("w", ["t"], 20.0))
    assert claim(store) == ["a2"]


def test_partitions_without_jobs_are_forgotten(
    store: PostgresStore, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milepost.stores.postgres.maintenance.TURNS_KEPT", 2)
    create(store, "a", "b", "c")
    assert claim(store, 3) == ["a", "b", "c"]
    create(store, "d", "e", "f")
    assert claim(store) == ["d"]
    create(store, "gone")
    for name in ("e", "gone"):
        run_sync(store.apply([Write(name, plans.plan_cancel(new_operation_id()))]))
    run_sync(store.purge(before=0))
    with psycopg.connect(postgres_server.url()) as connection:
        names = connection.execute("SELECT name FROM subqueues.subqueues ORDER BY turn, name").fetchall()
        arrivals = connection.execute("SELECT name FROM subqueues.arrivals").fetchall()
    assert [name.rpartition("\x1f")[2] for (name,) in names] == ["f", "c", "d"]
    assert arrivals == []
    assert claim(store, 9) == ["f"]
