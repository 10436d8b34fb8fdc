"""The limits of the memory store, the leases that they count, and the subqueues in the order of their turns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING

from milepost.core.defaults import TURNS_KEPT
from milepost.core.limits import (
    KEEP,
    Capacities,
    Keep,
    Limit,
    Rate,
    by_key,
    counted_under,
    key_of,
    queue_name,
    slot_of,
    with_keys,
)
from milepost.core.serialization import US
from milepost.core.transitions.operations import BranchResult
from milepost.stores.claim_order import UNKNOWN_RANK, Subqueue

if TYPE_CHECKING:
    from milepost.stores.memory.state import MemoryState


class LimitTable(dict[str, Limit]):
    """The limits by key."""

    def put(self, key: str, limit: Limit, now: int) -> None:
        """Set a limit, and forget those that change nothing any more."""
        self[key] = limit
        for name in [name for name, one in self.items() if one.is_empty(now)]:
            del self[name]

    def close_gate(self, key: str, until: int, now: int) -> None:
        """Let no job with a limit key start until a time, or a later one that is set; 0 opens its gate."""
        limit = self.get(key, Limit())
        self.put(key, limit._replace(gate=max(limit.gate, until) if until else 0), now)

    def apply(self, effect: BranchResult, now: int) -> None:
        """Close the gates that a branch closes, and give back the starts that it gives back."""
        for key, until in effect.gates.items():
            self.close_gate(key, until, now)
        for key, started in effect.unstarted:
            if key in self:
                self[key] = self[key].returned(started, now)


class MemoryLimits:
    """Limits, and the leases that they count."""

    _memory: MemoryState

    def _held(self, slot: str) -> int:
        live = len(self._memory.indexes.get(("slot", slot), ()))
        return live + sum(slot in counted_under(stop.slot) for stop in self._memory.stops.values())

    async def limits(self) -> dict[str, Limit]:
        with self._memory.lock:
            return dict(self._memory.limits)

    async def set_limit(
        self,
        key: str,
        running: int | Keep | None,
        paused: bool | Keep,
        per_partition: int | Keep | None = None,
        rate: Rate | Keep | None = KEEP,
    ) -> None:
        with self._memory.lock:
            now, limits = self._memory.tick(), self._memory.limits
            limits.put(key, limits.get(key, Limit()).changed(running, paused, per_partition, rate), now)
            self._memory.announce_freed_slot()
            self._memory.waiters.notify_all()

    async def close_gate(self, key: str, micros: int) -> None:
        with self._memory.lock:
            now = self._memory.tick()
            self._memory.limits.close_gate(key, now + micros if micros else 0, now)
            self._memory.announce_freed_slot()
            self._memory.waiters.notify_all()

    async def claimable_jobs(self) -> dict[str, int]:
        with self._memory.lock:
            found = [(index[1], len(jobs)) for index, jobs in self._memory.indexes.items() if index[0] == "claimable"]
            return {key: count for key, count in by_key(found).items() if key in self._memory.limits}

    async def held_slots(self) -> dict[str, int]:
        with self._memory.lock:
            live = [(index[1], len(found)) for index, found in self._memory.indexes.items() if index[0] == "slot"]
            return Counter(dict(live)) + with_keys((stop.slot, 1) for stop in self._memory.stops.values())


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
