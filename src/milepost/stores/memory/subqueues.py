"""The subqueues of the memory store, in the order of their turns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from heapq import merge
from itertools import islice

from milepost.core.defaults import TURNS_KEPT
from milepost.core.limits import Capacities, key_of, queue_name, slot_of
from milepost.core.serialization import US
from milepost.stores.claim_order import UNKNOWN_RANK, Subqueue


class Subqueues:
    """The subqueues with claimable jobs, and the turns of queues and subqueues. Not thread-safe."""

    def __init__(self) -> None:
        self._rings: dict[str, dict[str, list[Subqueue]]] = {}
        """queue -> limit key -> the subqueues, in ascending order, so that a claim reads only the first ones."""
        self._placed: dict[str, Subqueue] = {}
        self._turns: dict[str, int] = {}
        """The number of the last turn, the oldest first."""
        self._last_turn = 0

    def place(self, name: str, rank: int | None) -> None:
        """Note the rank of the first claimable job of a subqueue, None if there is none; queues are left out."""
        old = self._placed.get(name)
        if US in name and rank != (None if old is None else old.rank):
            self._move(name, old, None if rank is None else Subqueue(rank, self._turns.get(name, 0), name))

    def _move(self, name: str, old: Subqueue | None, new: Subqueue | None) -> None:
        queue, key = queue_name(name), key_of(slot_of(name))
        rings = self._rings.setdefault(queue, {})
        ring = rings.setdefault(key, [])
        if old is not None:
            del ring[bisect_left(ring, old)]
        if new is not None:
            self._placed[name] = new
            insort(ring, new)
            return
        del self._placed[name]
        if not ring:
            del rings[key]
            if not rings:
                del self._rings[queue]

    def take_turn(self, name: str) -> int:
        """Give the next turn to a queue or a subqueue, and return its number."""
        self._last_turn += 1
        self._turns.pop(name, None)
        self._turns[name] = self._last_turn
        if (old := self._placed.get(name)) is not None:
            self._move(name, old, old._replace(turn=self._last_turn))
        return self._last_turn

    def has_turns(self, queue: str) -> bool:
        """Return whether a queue has subqueues with claimable jobs, so that its jobs start in turn."""
        return queue in self._rings

    def first(self, queue: str, capacities: Capacities, *, own: bool) -> Iterator[Subqueue]:
        """Yield the subqueues of a queue in ascending order, without those of limit keys without capacity.

        `own`: the queue itself has claimable jobs, and comes first. Jobs may start meanwhile; a subqueue that moves on by its
        turn comes again.
        """
        itself = [Subqueue(UNKNOWN_RANK, self._turns.get(queue, 0), queue)] if own else []
        rings = self._rings.get(queue)
        return iter(itself) if rings is None else merge(itself, *(_open(rings[key], key, capacities) for key in rings))

    def forget(self) -> None:
        """Forget turns of those without claimable jobs, except for the newest turns."""
        old = islice(self._turns, max(0, len(self._turns) - TURNS_KEPT))
        for name in [name for name in old if name not in self._placed]:
            del self._turns[name]


def _open(ring: list[Subqueue], key: str, capacities: Capacities) -> Iterator[Subqueue]:
    last: Subqueue | None = None
    while capacities.of(key) > 0 and (at := 0 if last is None else bisect_right(ring, last)) < len(ring):
        last = ring[at]
        yield last
