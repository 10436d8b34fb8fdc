"""The soak, small in `make test` and at full size in `make test-slow`. The seed is printed."""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos.checker import check
from tests.chaos.soak import Soak, Targets, summary
from tests.postgres_server import OTHER_POSTGRES

SMALL = Targets().times(0.6)
FULL = Targets(jobs=2000, kills=40, zombies=10, lost=50, restarts=3, commits=6, cancels=200, deletes=100, poison=10)


def seed() -> int:
    """CHAOS_SEED, or one that was never used before."""
    return int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.service("redis-server"))])
@pytest.mark.parametrize("targets", [SMALL, pytest.param(FULL, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
                         ids=["small", "full"])  # fmt: skip
def test_invariants_hold_in_soak(kind: str, targets: Targets) -> None:
    check_soak(kind, targets)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.service("postgresql")
def test_invariants_hold_in_soak_on_postgresql() -> None:
    check_soak("postgres", Targets())


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", OTHER_POSTGRES)
def test_invariants_hold_in_small_soak_on_other_versions_of_postgresql(kind: str) -> None:
    check_soak(kind, Targets().times(0.3))


def check_soak(kind: str, targets: Targets) -> None:
    """Run a soak, and check that its faults happened and that no invariant was violated."""
    outcome = Soak(kind, targets, seed()).run()
    violations = check(outcome.history)
    print(summary(outcome, violations))
    assert not violations, summary(outcome, violations)
    assert outcome.counts["SIGKILLs"] == targets.kills
    assert outcome.counts["zombies"] == targets.zombies
    assert outcome.counts["replies lost"] >= targets.lost * 0.8
