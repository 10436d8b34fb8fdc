"""A suite that cannot fail proves nothing: each guard of the lifecycle is removed, and some scenario must notice.

The store is the memory store; only the shapes that it is given are changed, one guard of one case at a time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from milepost.core import lifecycle
from milepost.core.change import Change, Shape
from milepost.stores.driving import drive
from milepost.stores.memory import MemoryStore
from milepost.stores.protocol import Applied, Claim, Write
from milepost.testing import FrozenClock
from milepost.testing.conformance import Conformance, cells
from milepost.testing.conformance.claims import Waking
from milepost.testing.conformance.harness import World, scenarios_of
from milepost.testing.conformance.language import Language
from milepost.testing.conformance.sharing import Sharing
from milepost.testing.conformance.shelf import Itself, OnTheShelf
from milepost.testing.conformance.telling import Feed

NOT_ABOUT_GUARDS = (Language, Waking, Sharing, OnTheShelf, Itself, Feed)

Run = Callable[[World], Coroutine[Any, Any, None]]


def identity(shape: Shape) -> object:
    """What a shape is known by: itself, but its guards for a birth, of which there is one for each set of fields."""
    return ("create", shape.cases[0].guards) if shape.name == "create" else shape


SHAPES: dict[object, tuple[str, Shape]] = {
    identity(shape): (name, shape) for name, plan in cells.PLANS.items() for shape in [plan("op", "1:a").shape]
}
GUARDS = [
    pytest.param(known, case, guard, id=f"{name}, case {case}, without {' '.join(map(str, shape.cases[case].guards[guard]))}")
    for known, (name, shape) in SHAPES.items()
    for case in range(len(shape.cases))
    for guard in range(len(shape.cases[case].guards))
]  # fmt: skip


class Careless(MemoryStore):
    """A memory store that does not look at one guard, and remembers which shapes it was given."""

    def __init__(self, removed: tuple[object, int, int] | None = None) -> None:
        self.moving = FrozenClock()
        super().__init__(blocking=True, clock=self.moving)
        self.given: set[object] = set()
        self._removed = removed
        self._shapes: dict[Shape, Shape] = {}
        self.was_careless = False

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> Applied:
        writes = [write._replace(change=self._without(write.change)) for write in writes]
        if claim is not None:
            claim = replace(claim, starts=tuple(map(self._without, claim.starts)))
        return await super().apply(writes, claim)

    def _without(self, change: Change) -> Change:
        known = identity(change.shape)
        self.given.add(known)
        if self._removed is None or known != self._removed[0]:
            return change
        if change.shape not in self._shapes:
            _, case, guard = self._removed
            cases = list(change.shape.cases)
            guards = cases[case].guards
            cases[case] = replace(cases[case], guards=guards[:guard] + guards[guard + 1 :])
            self._shapes[change.shape] = replace(change.shape, cases=tuple(cases))
        careless = change._replace(shape=self._shapes[change.shape])
        self.was_careless = True
        return careless


def runs() -> Iterator[tuple[str, Run]]:
    """The scenarios that could notice."""
    for name, scenario, values in scenarios_of(Conformance):
        if not any(name in vars(part) for part in NOT_ABOUT_GUARDS):
            yield name, lambda world, scenario=scenario, values=values: scenario(None, world, **values)  # type: ignore[misc]


@cache
def with_every_guard() -> dict[tuple[str, int], tuple[Run, frozenset[object]]]:
    """Each scenario that passes with every guard in its place, and the shapes that it uses."""
    found = {}
    for number, (name, run) in enumerate(runs()):
        store = Careless()
        drive(run(World(store, store.moving)))
        found[name, number] = (run, frozenset(store.given))
    return found


def test_every_plan_of_the_lifecycle_has_its_row() -> None:
    text = inspect.getsource(cells)
    assert [name for name in lifecycle.__all__ if name.startswith("plan_") and f"plans.{name}(" not in text] == []
    assert set(cells.PLANS) == set(cells.ALLOWED)


@pytest.mark.parametrize(("known", "case", "guard"), GUARDS)
def test_the_suite_notices_that_a_guard_is_gone(known: object, case: int, guard: int) -> None:
    noticed = []
    for (name, _), (run, shapes) in with_every_guard().items():
        if known in shapes:
            store = Careless((known, case, guard))
            try:
                drive(run(World(store, store.moving)))
            except (AssertionError, ValueError, KeyError, TypeError):
                assert store.was_careless, "it failed before there was anything to notice"
                noticed.append(name)
                break
    assert noticed, "no scenario of the conformance suite fails without this guard"
