"""Negative controls: the suite detects stores that start more jobs than a limit allows, or in the wrong order."""

from __future__ import annotations

import random

import pytest

from milepost.core.limits import Capacities, Limit
from milepost.stores.memory.store import MemoryStore
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import StoreFixture
from milepost.testing.conformance.limits import Limits, random_history
from milepost.testing.conformance.rates import Rates, random_starts
from tests.conformance.failing_scenarios import failing_scenarios


class ForgetsDrainingLeases(MemoryStore):
    """Counts only live leases."""

    def _held(self, slot: str) -> int:
        return len(self._memory.indexes.get(("slot", slot), ()))


class ForgetsPartitions(MemoryStore):
    """Counts for a key only the leases without a partition."""

    def _held(self, slot: str) -> int:
        jobs = (self._memory.records[str(order[-1])] for order in self._memory.indexes.get(("slot", slot), ()))
        return sum(job.get("slot") == slot for job in jobs)


class TakesNoTurns(MemoryStore):
    async def apply(self, *args: object) -> object:  # type: ignore[override]
        self._memory.subqueues.take_turn = lambda _: 0  # type: ignore[method-assign]
        return await super().apply(*args)  # type: ignore[arg-type]


class ShortensGates(MemoryStore):
    """Sets the time of a gate even if it is closed for longer."""

    async def close_gate(self, key: str, micros: int) -> None:
        await super().close_gate(key, 0)
        await super().close_gate(key, micros)


class ForgetsGates(MemoryStore):
    """Closes no gate when a run is snoozed."""

    async def apply(self, *args: object) -> object:  # type: ignore[override]
        limits = dict(self._memory.limits)
        try:
            return await super().apply(*args)  # type: ignore[arg-type]
        finally:
            self._memory.limits.clear()
            self._memory.limits.update(limits)


def failures(kind: type[MemoryStore]) -> set[str]:
    """Return the scenarios of limits that fail on a store."""
    return failing_scenarios(kind, Limits, Rates)


def test_right_store_passes() -> None:
    assert failures(MemoryStore) == set()


@pytest.mark.parametrize(
    ("kind", "scenario"),
    [
        (ForgetsDrainingLeases, "test_stopping_run_keeps_its_place_under_a_limit"),
        (ForgetsPartitions, "test_running_limit_counts_all_partitions"),
        (ForgetsPartitions, "test_limits_hold_in_random_histories"),
        (TakesNoTurns, "test_partitions_take_turns"),
        (ShortensGates, "test_closed_gate_lets_no_job_of_its_key_start"),
        (ForgetsGates, "test_snooze_closes_a_gate_in_the_same_step"),
        (TakesNoTurns, "test_partition_that_comes_back_keeps_its_turn"),
        (TakesNoTurns, "test_turns_hold_in_random_histories"),
    ],
)
def test_fault_is_detected(kind: type[MemoryStore], scenario: str) -> None:
    assert scenario in failures(kind)


def test_claim_that_forgets_its_own_starts_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Capacities, "take", lambda self, slot: None)
    with pytest.raises(AssertionError, match="the limit is"):
        run_sync(random_history(StoreFixture(MemoryStore()), random.Random(20)))


def test_rate_without_memory_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limit, "started", lambda self, now: self)
    with pytest.raises(AssertionError, match="starts within"):
        run_sync(random_starts(StoreFixture(MemoryStore()), random.Random(16)))
