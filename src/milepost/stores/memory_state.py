"""What the memory store keeps: records, indexes, stopping leases, events. Owns the state and the facts that changes ask
about; knows no verb. Everything here is called with the lock held.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort
from collections import defaultdict, deque
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from milepost.core.change import Effect, Record, Stopping
from milepost.core.defaults import EVENTS_KEPT, FEED_KEPT
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.stores.bell import Bell
from milepost.stores.placement import WAITING_FOR_STOP, Entry, placement

CLAIMS_KEPT_MICROS = 60_000_000
TOMBSTONE_MICROS = 60_000_000
READY_KEPT = 64


class _Kept(NamedTuple):
    """An event of a job, and whether it stays whatever the bound."""

    event: Event
    always: bool


class Memory:
    """The state, and the facts that changes ask about."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.lock = threading.RLock()
        self.bell = Bell(self.lock)
        self.records: dict[str, Record] = {}
        self.entries: dict[str, set[Entry]] = {}
        self.indexes: dict[tuple[str, ...], list[tuple[int | str, ...]]] = defaultdict(list)
        self.stops: dict[str, Stopping] = {}
        self.kept: dict[str, list[_Kept]] = defaultdict(list)
        self.feed: deque[Event] = deque(maxlen=FEED_KEPT)
        self.feed_end = 0
        self.tombstones: dict[str, tuple[str, str, int]] = {}
        self.claims: dict[str, tuple[str, list[str], int]] = {}
        self.ready: dict[str, int] = defaultdict(int)
        self.nudged: set[str] = set()
        self.shelf: dict[str, tuple[str, int, int | None]] = {}
        self.shelf_versions = 0
        self.limits: dict[str, tuple[int | None, bool]] = {}
        self.last_sweep: int | None = None
        self.hold: int | None = None
        self.fence = 0
        self.now = 0
        self._clock = clock

    def tick(self) -> int:
        """Read the clock; it never goes back."""
        self.now = max(self.now, self._clock())
        return self.now

    # --- Facts ---

    def stopping(self, job_id: str) -> Stopping | None:
        return self.stops.get(job_id)

    def key_is_stopping(self, key: str) -> bool:
        return any(stop.key == key for stop in self.stops.values())

    def holder(self, key: str) -> str | None:
        """The id of the newest record with a unique key."""
        index = self.indexes.get(("key", key))
        return str(index[-1][-1]) if index else None

    def status_of_holder(self, key: str, job_id: str) -> str:
        holder = self.holder(key)
        return self.records[holder]["status"] if holder is not None and holder != job_id else ""

    def next_fence(self) -> int:
        self.fence = max(self.fence + 1, self.now)
        return self.fence

    # --- keeping the record and what is derived from it ---

    def parked(self, job_id: str, record: Record) -> bool:
        """Whether a stopping lease keeps a record from being claimed."""
        key = record.get("unique_key", "")
        return job_id in self.stops or bool(key and self.key_is_stopping(key))

    def place(self, job_id: str) -> None:
        """Bring the indexes in line with the record as it is now."""
        record = self.records.get(job_id)
        old = self.entries.pop(job_id, set())
        new = (
            placement(job_id, record, now=self.now, parked=self.parked(job_id, record)) if record is not None else set()
        )
        for index, order in old - new:
            entries = self.indexes[index]
            del entries[bisect_left(entries, order)]
            if not entries:
                del self.indexes[index]
            if index[0] == "slot" and ("claimable", index[1]) in self.indexes:
                self.announce(index[1])
        for index, order in new - old:
            insort(self.indexes[index], order)
            if index[0] == "claimable":
                self.announce(index[1])
        if new:
            self.entries[job_id] = new

    def announce(self, queue: str) -> None:
        """Tell an idle worker that a queue may have something for it."""
        self.ready[queue] = min(READY_KEPT, self.ready[queue] + 1)

    def promote(self) -> None:
        """Make scheduled records that have come due claimable."""
        for index in [index for index in self.indexes if index[0] == "scheduled"]:
            for due, job_id in tuple(islice(self.indexes[index], 100)):
                if int(due) > self.now:
                    break
                self.place(str(job_id))

    def keep(self, job_id: str, op: str, effect: Effect, now: int) -> None:
        """Write down what a performed case asks for."""
        stop = self.stops.pop(job_id, None) if effect.dropped else None
        if effect.stopping is not None:
            self.stops[job_id] = effect.stopping
            self.nudged.add(effect.stopping.worker)
        if effect.record is None:
            gone = self.records.pop(job_id, None)
            if gone is not None:
                self.tombstones[job_id] = (gone.get("born", ""), op, now + TOMBSTONE_MICROS)
        else:
            self.records[job_id] = effect.record
        self.place(job_id)
        if stop is not None:
            waiting = self.holder(stop.key) if stop.key else None
            if waiting is not None:
                self.place(waiting)
            if stop.slot and ("claimable", stop.slot) in self.indexes:
                self.announce(stop.slot)
        if effect.event:
            self.tell(job_id, effect, now)
        if effect.record is None:
            self.kept.pop(job_id, None)

    def tell(self, job_id: str, effect: Effect, now: int) -> None:
        """Append the event of a performed case."""
        event = Event.stored(job_id, effect.version, effect.event, now, effect.text)
        self.feed.append(event)
        self.feed_end += 1
        if effect.keep != "feed":
            kept = self.kept[job_id]
            kept.append(_Kept(event, effect.keep == "life"))
            passing = [entry for entry in kept if not entry.always]
            if len(passing) > EVENTS_KEPT:
                kept.remove(passing[0])

    def job(self, job_id: str) -> Job | None:
        """The job of an id, with what it waits for."""
        record = self.records.get(job_id)
        if record is None:
            return None
        if record.get("queue") and self.parked(job_id, record):
            record = {**record, "waiting_for": WAITING_FOR_STOP}
        return Job.stored(job_id, record)


def system_micros() -> int:
    """The clock of this machine, in microseconds since 1970."""
    return time.time_ns() // 1000
