"""The order in which a claim starts jobs: by priority, in turn among the subqueues of a queue, then by age among queues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush, heapreplace
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


BEFORE_ALL = Subqueue(UNKNOWN_RANK, 0, "")


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


class _Queue:
    """The subqueues of a queue that a claim has looked at, as a heap, and the others, of which it looks at no more than it needs.

    A subqueue that comes again among the others, because it has had its turn, is left out.
    """

    def __init__(self, subqueues: Iterable[Subqueue]) -> None:
        self._others, self._last = iter(subqueues), BEFORE_ALL
        self._names: set[str] = set()
        self.heap: list[Subqueue] = []

    def first(self) -> Subqueue | None:
        """Return the first subqueue, or None at the end."""
        while not self.heap or self.heap[0] > self._last:
            one = next(self._others, None)
            if one is None:
                break
            self._last = one
            if one.name not in self._names:
                self._names.add(one.name)
                heappush(self.heap, one)
        return self.heap[0] if self.heap else None


class ClaimOrder(Generic[One]):
    """Gives the jobs of subqueues in the order in which one claim starts them, as far as there is capacity.

    `found` are the subqueues of each queue in ascending order. `head` returns the first job of a subqueue that it has not
    returned before, or None.
    """

    def __init__(
        self, found: Mapping[str, Iterable[Subqueue]], capacities: Capacities, head: Callable[[str], One | None]
    ) -> None:
        self._queues = {queue: _Queue(subqueues) for queue, subqueues in found.items()}
        self._capacities, self._read = capacities, head
        self._heads: dict[str, One] = {}

    def next(self) -> tuple[str, One] | None:
        """Return the name of a subqueue and its next job, or None at the end."""
        first = map(self._first, self._queues.values())
        best = min(filter(None, first), key=lambda one: (one[1].rank, one[1].created, one[1].id), default=None)
        if best is not None:
            del self._heads[best[0]]
        return best

    def _first(self, queue: _Queue) -> tuple[str, One] | None:
        while (one := queue.first()) is not None:
            if self._capacities.of(slot_of(one.name)) <= 0 or (head := self._head(one.name)) is None:
                heappop(queue.heap)
            elif head.rank != one.rank:
                heapreplace(queue.heap, one._replace(rank=head.rank))
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

    def started(self, name: str, turn: int = 0) -> None:
        """Note that the job that `next` has returned was started, in this turn."""
        self._capacities.take(slot_of(name))
        heap = self._queues[queue_name(name)].heap
        heapreplace(heap, heap[0]._replace(turn=turn))
