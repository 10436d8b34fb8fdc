"""All states that can be reached, breadth first: the first path to a state is a shortest one."""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from milepost.core.transitions import TERMINAL
from milepost.core.transitions.change import Change, DrainingLease, Record
from milepost.stores.memory.state import MemoryState
from milepost.stores.memory.store import MemoryStore
from milepost.testing import FrozenClock
from tests.explorer.abstraction import key_of
from tests.explorer.actors import Action, Actors, Budgets, Step
from tests.explorer.rules import RULES, Rule
from tests.explorer.world import JOB, World

BY_THEMSELVES = ("tick", "sweep", "write sweep", "claim", "renew", "complete", "receipt")
"""The actions that happen without a fault and without a caller."""

Path = tuple[Action, ...]


class MemoryWorld(World):
    """The actors on a memory store, whose state can be taken out and put back."""

    def __init__(self, *, attempts: int = 2, alter: Callable[[Change], Change] | None = None, timed: bool = True) -> None:  # fmt: skip
        clock = FrozenClock()
        store = MemoryStore(clock=clock)
        super().__init__(store, clock, attempts=attempts, alter=alter, timed=timed)
        self.memory: MemoryState = store._memory
        self.memory.tick()
        self._containers = [name for name, value in vars(self.memory).items() if isinstance(value, dict | set | deque)]

    def record(self) -> Record | None:
        return self.memory.records.get(JOB)

    def stopping(self) -> DrainingLease | None:
        return self.memory.stops.get(JOB)

    def take(self) -> tuple[Any, ...]:
        """Return a copy of the state. Events are left out: nothing depends on them."""
        self.memory.feed.clear()
        self.memory.kept.clear()
        kept: list[tuple[str, Any]] = []
        for name, value in vars(self.memory).items():
            if name in self._containers:
                if value:
                    kept.append((name, _copied(value)))
            elif name not in _FIXED:
                kept.append((name, value))
        return self.ids.count, self.clock(), kept

    def put(self, state: tuple[Any, ...]) -> None:
        """Return to a state."""
        self.ids.count, now, kept = state
        self.clock.move_to(now)
        for name in self._containers:
            getattr(self.memory, name).clear()
        for name, value in kept:
            setattr(self.memory, name, _copied(value) if name in self._containers else value)


_FIXED = ("lock", "waiters", "_clock")


def _copied(value: Any) -> Any:
    """Copy a container of the store and the containers in it; records are never changed in place."""
    new = value.copy()
    if isinstance(new, dict):
        for name, inner in new.items():
            if type(inner) in (list, set, dict):
                new[name] = inner.copy()
    return new


class Violation(NamedTuple):
    """A rule that does not hold, and a shortest path that shows it."""

    rule: str
    text: str
    path: Path


@dataclass
class Exploration:
    """What was found. `stuck` are paths to states from which no end can be reached, of a complete exploration."""

    states: int = 0
    transitions: int = 0
    complete: bool = False
    violations: list[Violation] = field(default_factory=list)
    stuck: list[Path] = field(default_factory=list)
    covering: dict[Hashable, Path] = field(default_factory=dict)
    """A shortest path to each kind of step: see `kind_of`."""
    unequal: list[tuple[Path, Path]] = field(default_factory=list)
    """Pairs of paths to states that were taken as equal, and do not continue in the same way."""
    compared: int = 0


class Explorer:
    """Explores the states of one world. `rules` are checked at every change; `alter` changes what is sent.

    Of the states that were taken as equal to an earlier one, every `compare`-th is expanded too, and compared.
    """

    def __init__(
        self, budgets: Budgets, *, attempts: int = 2, alter: Callable[[Change], Change] | None = None,
        rules: Sequence[Rule] = RULES, compare: int = 0, timed: bool = True,
    ) -> None:  # fmt: skip
        self._world = MemoryWorld(attempts=attempts, alter=alter, timed=timed)
        self._rules = list(rules)
        self._compare = compare
        self._found = Exploration()
        self._start = Actors(budgets)
        self._known: dict[Hashable, int] = {key_of(self._world.memory, self._start): 0}
        self._came: list[tuple[int, Action] | None] = [None]
        self._waiting = deque([(0, self._world.take(), self._start)])
        self._back: dict[int, array[int]] = defaultdict(lambda: array("l"))
        self._ends: list[int] = []
        self._expanded: dict[int, list[int]] = {}
        self._again: list[tuple[int, Path, Any, Actors]] = []
        self._met = 0

    def run(self, *, first_only: bool = False, most: int = 1_000_000) -> Exploration:
        """Visit all states, at most `most`. With `first_only`, stop after the first violation."""
        found = self._found
        while self._waiting and len(self._known) <= most and not (first_only and found.violations):
            number, state, actors = self._waiting.popleft()
            reached = self._expand(number, state, actors)
            if self._compare:
                self._expanded[number] = reached
        found.states, found.complete = len(self._known), not self._waiting
        if found.complete:
            found.stuck = [self._path(number) for number in self._without_end()]
        self._compare_again()
        return found

    def _expand(self, number: int, state: Any, actors: Actors) -> list[int]:
        """Perform all actions in a state and return the numbers of the states that they lead to."""
        world, reached = self._world, []
        world.put(state)
        record = world.record()
        if (record is None or record["status"] in TERMINAL) and world.stopping() is None and not any(actors.workers):
            self._ends.append(number)
        for action in list(world.actions(actors)):
            world.put(state)
            after, steps = world.perform(actors, action)
            self._found.transitions += 1
            to = self._known.setdefault(key_of(world.memory, after), len(self._known))
            reached.append(to)
            if to == len(self._came):
                self._came.append((number, action))
                self._waiting.append((to, world.take(), after))
            elif self._compare and to != number:
                self._met += 1
                if self._met % self._compare == 0:
                    self._again.append((to, self._path(number, action), world.take(), after))
            if action.name in BY_THEMSELVES:
                self._back[to].append(number)
            for step in steps:
                self._check(step, number, action)
        return reached

    def _check(self, step: Step, number: int, action: Action) -> None:
        kind = kind_of(step, action)
        if kind not in self._found.covering:
            self._found.covering[kind] = self._path(number, action)
        for rule in self._rules:
            if text := rule(step):
                self._rules.remove(rule)
                self._found.violations.append(Violation(rule.__name__, text, self._path(number, action)))
                return

    def _path(self, number: int, *last: Action) -> Path:
        path = list(reversed(last))
        while (came := self._came[number]) is not None:
            number, action = came
            path.append(action)
        return tuple(reversed(path))

    def _without_end(self) -> list[int]:
        """Return the states from which no end can be reached."""
        can, waiting = set(self._ends), list(self._ends)
        while waiting:
            for number in self._back.get(waiting.pop(), ()):
                if number not in can:
                    can.add(number)
                    waiting.append(number)
        return [number for number in range(len(self._known)) if number not in can]

    def _compare_again(self) -> None:
        """Compare how states continue that were taken as equal."""
        self._compare, again = 0, self._again
        for number, path, state, actors in again:
            if number not in self._expanded:
                continue
            self._found.compared += 1
            if set(self._expand(number, state, actors)) != set(
                self._expanded[number]
            ):  # workers may have changed places
                self._found.unequal.append((self._path(number), path))


def kind_of(step: Step, action: Action) -> Hashable:
    """Return what a path has to show once: the transition, its branch or refusal, and how it came about."""
    statuses = ((step.before or {}).get("status", ""), (step.after or {}).get("status", ""))
    return (action.name, step.name, step.accepted, step.repeated, step.delivered_again, statuses)
