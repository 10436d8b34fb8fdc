"""The subqueues of partitions in memory: what a claim looks at, what is forgotten."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest

from milepost.core import transitions as plans
from milepost.stores.ids import new_operation_id
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import Claim, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import LONG
from milepost.testing.conformance.limits import limited_job


def create(store: MemoryStore, *names: str) -> None:
    """Create one job in each of these partitions, with its name."""
    run_sync(store.apply([Write(name, plans.plan_create(limited_job(name), new_operation_id())) for name in names]))


def claim(store: MemoryStore, most: int = 1) -> list[str]:
    """Start jobs and return their ids."""
    starts = tuple(plans.plan_start(new_operation_id(), nonce="n", lease=LONG, worker="w") for _ in range(most))
    return [
        job.job_id for job in run_sync(store.apply([], Claim("w", {"t": None}, starts, new_operation_id()))).claimed
    ]


def calls(work: Callable[[], object]) -> int:
    """Return how many calls of Python and C functions a piece of work makes."""
    count = 0

    def note(frame: object, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    gc.disable()  # it calls finalizers of other objects
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


@pytest.mark.parametrize("running", [None, 2])
def test_claim_looks_only_at_the_first_partitions(running: int | None) -> None:
    counts = []
    for number in (10, 1000):
        store = MemoryStore()
        run_sync(store.set_limit("t", running, False, 1))
        create(store, *(f"p{number:04}" for number in range(number)))
        assert claim(store, 2) == ["p0000", "p0001"]
        waits = calls(lambda store=store: run_sync(store.wait_for_work("w", ["t"], 0.0)))  # type: ignore[misc]
        counts.append((waits, calls(lambda store=store: claim(store, 2))))  # type: ignore[misc]
        assert claim(store) == (["p0004"] if running is None else [])
    assert counts[0] == counts[1]


def test_partitions_without_jobs_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milepost.stores.memory.limits.TURNS_KEPT", 2)
    store = MemoryStore()
    create(store, "a", "b", "c")
    assert claim(store, 3) == ["a", "b", "c"]
    run_sync(store.purge(before=0))
    for name in ("a", "b", "c"):
        run_sync(store.apply([Write(f"{name}2", plans.plan_create(limited_job(name), new_operation_id()))]))
    assert claim(store, 3) == ["a2", "b2", "c2"], "a counts as having had no turn"
    assert [name.rpartition("\x1f")[2] for name in store._memory.subqueues._turns] == ["a", "b", "c"]
    run_sync(store.purge(before=0))
    assert [name.rpartition("\x1f")[2] for name in store._memory.subqueues._turns] == ["b", "c"]
