"""Who acts in an exploration, and what they know: the budgets of faults, the runs in workers, the requests that are repeated.

An `Action` is plain data, so a list of actions is a path that any store can follow.
"""

from __future__ import annotations

from typing import NamedTuple

from milepost.core.transitions.change import Change, DrainingLease, Record
from milepost.stores.protocol import Claim, Write


class Budgets(NamedTuple):
    """How often each fault, and each request of the caller, may happen."""

    crashes: int = 0
    cancels: int = 0
    retries: int = 0
    deletes: int = 0
    repeats: int = 0
    """Requests that are delivered again, later."""

    def spend(self, name: str) -> Budgets:
        """Return the budgets after one more of these."""
        return self._replace(**{name: getattr(self, name) - 1})


class Action(NamedTuple):
    """What one of them does. `again`: its request will be delivered a second time."""

    name: str
    worker: int = -1
    again: bool = False


class Run(NamedTuple):
    """A run as its worker sees it: running, asked to stop, or ended without having been able to write its outcome."""

    mode: str
    token: str


class Repeat(NamedTuple):
    """A request that will be delivered again: its writes or its claim."""

    action: str
    writes: tuple[Write, ...]
    claim: Claim | None
    accepted: tuple[bool, ...]
    """Which of its writes were accepted the first time."""
    age: int = 0
    """Ticks since then."""


class Actors(NamedTuple):
    """What the store does not know: the runs in the workers, the sweep in progress, and what is left of the budgets."""

    budgets: Budgets
    workers: tuple[Run | None, ...] = (None, None)
    found: tuple[Write, ...] = ()
    """What the sweeper is going to write."""
    repeat: Repeat | None = None
    created: int = 0


class Step(NamedTuple):
    """One change that was sent to the store, and what came of it."""

    name: str
    """The transition."""
    change: Change
    before: Record | None
    after: Record | None
    stopping_before: DrainingLease | None
    stopping: DrainingLease | None
    """The draining lease of the job afterwards."""
    accepted: bool
    """Whether it was applied, or had been applied before."""
    repeated: bool
    now: int
    token: str | None = None
    """That of the run that sent it."""
    delivered_again: bool = False
    accepted_at_first: bool = False
    """Whether the request was accepted when it was delivered for the first time."""
    workers: tuple[Run | None, ...] = ()
