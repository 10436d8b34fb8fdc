"""Negative controls: the checker must detect a lifecycle without one guard, and the original design."""

from __future__ import annotations

import pytest

from tests.chaos.checker import check
from tests.chaos.original_manager import soak
from tests.chaos.simulated_soak import SimulatedSoak
from tests.chaos.zombie import Zombie
from tests.redis_server import RedisServer

STEPS = 1200
SEEDS = range(6)

REMOVED = {
    ("complete", "token"): {"I1", "I3", "I4"},
    ("checkpoint", "token"): {"I4", "I16"},
    ("progress", "token"): {"I4", "I9"},
    ("fail", "token"): {"I4"},
    ("release", "token"): {"I4"},
    ("start", "free"): {"I17 stopping"},
    ("start", "startable"): {"I18"},
    ("start", "ahead"): {"I18"},
    ("create", "unique"): {"I17"},
    ("retry", "unique"): {"I17"},
    ("cancel", "status"): {"I1"},
    ("retry", "status"): {"I1", "I3", "I22"},
}
"""A transition and a guard, and what its absence breaks; "status": the branches may start from any status."""


@pytest.mark.parametrize("seed", SEEDS)
def test_all_guards_give_no_violation(seed: int) -> None:
    assert check(SimulatedSoak(seed).run(STEPS)) == []


@pytest.mark.parametrize("removed", REMOVED, ids=[f"{transition} without {guard}" for transition, guard in REMOVED])
def test_missing_guard_is_detected(removed: tuple[str, str]) -> None:
    found: set[str] = set()
    for seed in range(60):
        found |= {line.partition(":")[0] for line in check(SimulatedSoak(seed, removed).run(STEPS))}
        if found & REMOVED[removed]:
            return
    pytest.fail(f"none of {sorted(REMOVED[removed])} was reported; these were: {sorted(found)}")


@pytest.mark.service("redis-server")
def test_original_design_violates_invariants(redis_server: RedisServer, redis_namespace: str) -> None:
    with redis_server.client() as client:
        found = {line.partition(":")[0] for line in check(soak(client, seed=2))}
    assert found >= {"I1", "I3", "I4", "I5", "I9", "I22"}


WRITES = pytest.mark.parametrize(("guard", "checkpoint"), [("complete:token", False), ("checkpoint:token", True)])


@pytest.mark.timeout(300)
@WRITES
@pytest.mark.service("redis-server")
def test_workers_without_fences_are_detected(guard: str, checkpoint: bool) -> None:
    violations = check(Zombie("redis", checkpoint=checkpoint, removed=guard).run().history)
    assert [line for line in violations if line.startswith("I4:")], "a zombie wrote, and the checker did not see it"


@pytest.mark.timeout(300)
@WRITES
@pytest.mark.service("redis-server")
def test_fences_stop_zombie_worker(guard: str, checkpoint: bool) -> None:
    assert check(Zombie("redis", checkpoint=checkpoint).run().history) == []
