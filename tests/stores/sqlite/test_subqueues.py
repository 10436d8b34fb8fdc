"""The subqueues of partitions on SQLite: what a claim reads of them, what is stored of them, what is forgotten."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from milepost.core import transitions as plans
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Claim, Write
from milepost.stores.sqlite import SQLiteStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import StoreFixture
from milepost.testing.conformance.limits import limited_job, random_history
from tests.stores.sqlite.conftest import Make
from tests.stores.sqlite.sqlite_fixture import check_file, do, start


def create(store: SQLiteStore, *names: str, **fields: str) -> None:
    """Create one job in each of these partitions, with its name."""
    do(store, *(Write(name, plans.plan_create(limited_job(name, **fields), new_operation_id())) for name in names))


def claim(store: SQLiteStore, most: int = 1) -> list[str]:
    """Start jobs and return their ids."""
    wish = Claim("w", {"t": None}, tuple(start() for _ in range(most)), new_operation_id())
    return [job.job_id for job in run_sync(store.apply([], wish)).claimed]


def instructions(store: SQLiteStore, work: Callable[[], object]) -> int:
    """Return how many instructions of SQLite's virtual machine a piece of work takes."""
    connections = [one._connection for one in (store._database._reader, store._database._writer) if one._connection]
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    for connection in connections:
        connection.set_progress_handler(step, 1)
    work()
    for connection in connections:
        connection.set_progress_handler(None, 0)
    return count


def test_claim_reads_only_the_first_partitions(make: Make, tmp_path: Path) -> None:
    counts = []
    for number in (10, 1000):
        store = make(path=tmp_path / f"{number}.db")
        run_sync(store.set_limit("t", None, False, 1))
        create(store, *(f"p{number:04}" for number in range(number)))
        assert claim(store, 2) == ["p0000", "p0001"]
        assert run_sync(store.wait_for_work("w", ["t"], 0.0))
        waits = instructions(store, lambda store=store: run_sync(store.wait_for_work("w", ["t"], 0.0)))  # type: ignore[misc]
        claims = instructions(store, lambda store=store: claim(store, 2))  # type: ignore[misc]
        assert claim(store) == ["p0004"]
        counts.append((waits, claims))
    assert counts[0] == counts[1]


def test_claim_reads_no_partition_of_a_full_limit_key(make: Make, tmp_path: Path) -> None:
    counts = []
    for number in (10, 1000):
        store = make(path=tmp_path / f"{number}.db")
        run_sync(store.set_limit("t", 1, False))
        create(store, *(f"p{number:04}" for number in range(number)))
        assert claim(store, 9) == ["p0000"]
        counts.append(instructions(store, lambda store=store: claim(store, 9)))  # type: ignore[misc]
    assert counts[0] == counts[1]


@pytest.mark.parametrize("seed", range(3))
def test_stored_subqueues_match_records(make: Make, path: Path, seed: int) -> None:
    store = make()
    run_sync(random_history(StoreFixture(store), random.Random(seed)))
    create(store, "low", "high", "gone", "deleted", priority="-5")
    create(store, *(f"more{number}" for number in range(3)))
    do(
        store,
        Write("gone", plans.plan_cancel(new_operation_id())),
        Write("deleted", plans.plan_delete(new_operation_id())),
    )
    assert check_file(path)


def test_partitions_without_jobs_are_forgotten(make: Make, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.stores.sqlite.maintenance.TURNS_KEPT", 2)
    store = make()
    create(store, "a", "b", "c")
    assert claim(store, 3) == ["a", "b", "c"]
    create(store, "d", "e", "f")
    assert claim(store) == ["d"]
    create(store, "gone")
    for name in ("e", "gone"):
        run_sync(store.apply([Write(name, plans.plan_cancel(new_operation_id()))]))
    run_sync(store.purge(before=0))
    connection = sqlite3.connect(path)
    names = connection.execute("SELECT name FROM subqueues ORDER BY turn, name").fetchall()
    connection.close()
    assert [name.rpartition("\x1f")[2] for (name,) in names] == ["f", "c", "d"]
    assert claim(store, 9) == ["f"]
