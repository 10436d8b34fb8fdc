"""The order in which a claim starts jobs: by priority, in turn among the subqueues of a queue, then by age among queues."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heapreplace
from typing import Generic, NamedTuple, Protocol, TypeVar

from milepost.core.limits import Capacities, queue_name, slot_of

UNKNOWN_RANK = -(1 << 63)
"""Less than any rank: the first job of such a subqueue is read before others start."""


class Subqueue(NamedTuple):
    """A subqueue, or a queue itself, with claimable jobs: the rank of its first one (the negated priority) or less, the
    number of its last turn (0: none yet), and its name."""

    rank: int
    turn: int
    name: str


class Head(Protocol):
    """The first claimable job of a subqueue."""

    @property
    def rank(self) -> int:
        """Return its negated priority."""

    @property
    def created(self) -> int:
        """Return when it was created."""

    @property
    def id(self) -> str:
        """Return its id."""


One = TypeVar("One", bound=Head)


class ClaimOrder(Generic[One]):
    """Gives the jobs of subqueues in the order in which one claim starts them, as far as there is capacity.

    `head` returns the first job of a subqueue that it has not returned before, or None.
    """

    def __init__(self, found: Iterable[Subqueue], capacities: Capacities, head: Callable[[str], One | None]) -> None:
        self._queues: dict[str, list[Subqueue]] = {}
        for one in sorted(found):
            self._queues.setdefault(queue_name(one.name), []).append(one)
        self._turned = {queue: any(one.name != queue for one in some) for queue, some in self._queues.items()}
        self._capacities, self._read = capacities, head
        self._heads: dict[str, One] = {}

    def next(self) -> tuple[str, One] | None:
        """Return the name of a subqueue and its next job, or None at the end."""
        first = (self._first(subqueues) for subqueues in self._queues.values())
        best = min(filter(None, first), key=lambda one: (one[1].rank, one[1].created, one[1].id), default=None)
        if best is not None:
            del self._heads[best[0]]
        return best

    def _first(self, subqueues: list[Subqueue]) -> tuple[str, One] | None:
        while subqueues:
            one = subqueues[0]
            if self._capacities.of(slot_of(one.name)) <= 0 or (head := self._head(one.name)) is None:
                heappop(subqueues)
            elif head.rank != one.rank:
                heapreplace(subqueues, one._replace(rank=head.rank))
            else:
                return one.name, head
        return None

    def _head(self, name: str) -> One | None:
        if name not in self._heads:
            head = self._read(name)
            if head is None:
                return None
            self._heads[name] = head
        return self._heads[name]

    def has_turns(self, name: str) -> bool:
        """Return whether the queue of this name has subqueues, so that its jobs start in turn."""
        return self._turned[queue_name(name)]

    def started(self, name: str, turn: int = 0) -> None:
        """Note that the job that `next` has returned was started, in this turn."""
        self._capacities.take(slot_of(name))
        subqueues = self._queues[queue_name(name)]
        heapreplace(subqueues, subqueues[0]._replace(turn=turn))
