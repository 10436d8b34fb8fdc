"""Negative controls: without any one guard of the lifecycle, some scenario of the suite must fail.

The store is the memory store; only its transitions are changed, one guard of one branch at a time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from milepost.core import transitions
from milepost.core.transitions.change import Change, TransitionType
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import WriteResult
from milepost.stores.sync_bridge import run_sync
from milepost.testing import FrozenClock
from milepost.testing.conformance import Conformance, transition_matrix
from milepost.testing.conformance.claims import Waking
from milepost.testing.conformance.concurrency import Concurrency
from milepost.testing.conformance.events import Feed
from milepost.testing.conformance.harness import StoreFixture, scenarios_of
from milepost.testing.conformance.kv import KeyValues, StoreItself
from milepost.testing.conformance.operations import Operations
from tests.conformance import test_postgres, test_redis, test_sqlite

NOT_ABOUT_GUARDS = (Operations, Waking, Concurrency, KeyValues, StoreItself, Feed)

Run = Callable[[StoreFixture], Coroutine[Any, Any, None]]


def identity(transition: TransitionType) -> object:
    """Return the identity of a transition: itself, or for "create", of which there is one per set of fields, its guards."""
    return ("create", transition.branches[0].guards) if transition.name == "create" else transition


SHAPES: dict[object, tuple[str, TransitionType]] = {
    identity(transition): (name, transition)
    for name, plan in transition_matrix.PLANS.items()
    for transition in [plan("op", "1:a").transition]
}
GUARDS = [
    pytest.param(known, branch, guard, id=f"{name}, branch {branch}, without {' '.join(map(str, transition.branches[branch].guards[guard]))}")
    for known, (name, transition) in SHAPES.items()
    for branch in range(len(transition.branches))
    for guard in range(len(transition.branches[branch].guards))
]  # fmt: skip


class Careless(MemoryStore):
    """A memory store that ignores one guard and records the transitions that it applied."""

    def __init__(self, removed: tuple[object, int, int] | None = None) -> None:
        self.moving = FrozenClock()
        super().__init__(blocking=True, clock=self.moving)
        self.given: set[object] = set()
        self._removed = removed
        self._shapes: dict[TransitionType, TransitionType] = {}
        self.was_careless = False

    def _write(self, job_id: str, change: Change, answer: bool, *, whole: bool = False) -> WriteResult:
        return super()._write(job_id, self._without(change), answer, whole=whole)

    def _without(self, change: Change) -> Change:
        known = identity(change.transition)
        self.given.add(known)
        if self._removed is None or known != self._removed[0]:
            return change
        if change.transition not in self._shapes:
            _, branch, guard = self._removed
            branches = list(change.transition.branches)
            guards = branches[branch].guards
            branches[branch] = replace(branches[branch], guards=guards[:guard] + guards[guard + 1 :])
            self._shapes[change.transition] = replace(change.transition, branches=tuple(branches))
        careless = change._replace(transition=self._shapes[change.transition])
        self.was_careless = True
        return careless


def runs() -> Iterator[tuple[str, Run]]:
    """Return the scenarios that may detect a missing guard."""
    for name, scenario, values in scenarios_of(Conformance):
        if not any(name in vars(part) for part in NOT_ABOUT_GUARDS):
            yield name, lambda fixture, scenario=scenario, values=values: scenario(None, fixture, **values)  # type: ignore[misc]


@cache
def with_every_guard() -> dict[tuple[str, int], tuple[Run, frozenset[object]]]:
    """Return each scenario that passes with every guard, and the transitions that it uses."""
    found = {}
    for number, (name, run) in enumerate(runs()):
        store = Careless()
        run_sync(run(StoreFixture(store, store.moving)))
        found[name, number] = (run, frozenset(store.given))
    return found


def test_every_plan_has_matrix_row() -> None:
    text = inspect.getsource(transition_matrix)
    assert [name for name in transitions.__all__ if name.startswith("plan_") and f"plans.{name}(" not in text] == []
    assert set(transition_matrix.PLANS) == set(transition_matrix.ALLOWED)


@pytest.mark.parametrize(
    "on_moved_clock",
    [
        test_sqlite.TestSQLiteStoreOnMovedClock,
        test_redis.TestRedisStoreOnMovedClock,
        test_postgres.TestPostgresStoreOnMovedClock,
    ],
)
def test_scenarios_that_need_a_moved_clock_run_on_every_store(on_moved_clock: type) -> None:
    """The scenario of the feed's limit of age was skipped on SQLite and PostgreSQL, whose other classes cannot move a clock."""
    needing = [cls for cls in Conformance.__mro__[:-1] if "needs_moving_clock(" in inspect.getsource(cls)]
    assert needing
    assert set(needing) <= set(on_moved_clock.__mro__)


@pytest.mark.parametrize(("known", "branch", "guard"), GUARDS)
def test_suite_detects_missing_guard(known: object, branch: int, guard: int) -> None:
    noticed = []
    for (name, _), (run, types) in with_every_guard().items():
        if known in types:
            store = Careless((known, branch, guard))
            try:
                run_sync(run(StoreFixture(store, store.moving)))
            except (AssertionError, ValueError, KeyError, TypeError):
                assert store.was_careless, "it failed before the missing guard mattered"
                noticed.append(name)
                break
    assert noticed, "no scenario of the conformance suite fails without this guard"
