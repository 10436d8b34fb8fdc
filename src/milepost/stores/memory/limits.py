"""The limits of the memory store, and the leases that they count."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from milepost.core.limits import KEEP, Keep, Limit, by_key, counted_under, with_keys
from milepost.core.rate import Rate
from milepost.core.transitions.operations import BranchResult

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
