"""The state of the memory store: records, indexes, draining leases, events, and the wake-up of waiting callers.

Call everything of `MemoryState` with the lock held.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice, takewhile
from typing import Any, NamedTuple

from milepost.core import rollups
from milepost.core.defaults import CLOCK_LEAD, EVENTS_KEPT, FEED_KEPT, FEED_SECONDS
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.limits import queue_name
from milepost.core.placement import AFTER, ORPHANS, groups_of, is_of_open_batch, members_pair
from milepost.core.record_codec import results_prefix, set_apart
from milepost.core.serialization import US, from_micros
from milepost.core.transitions import operation_ids
from milepost.core.transitions.change import Change, DrainingLease, Record
from milepost.core.transitions.operations import BranchResult
from milepost.forks import reset_after_fork
from milepost.stores.index_entries import WAITING_FOR_STOP, Entry, index_entries
from milepost.stores.memory.ledger import Ledger
from milepost.stores.memory.limits import LimitTable, Subqueues
from milepost.stores.sweep import Hold
from milepost.stores.waiters import Waiters

READY_KEPT = 64
_ENDED: Record = {"completed": ""}
"""Stands for the record of an id that has none: nothing of it is open."""


class _Kept(NamedTuple):
    """An event of a job; with `always` it is exempt from the bound of the list."""

    event: Event
    always: bool


class MemoryState:
    """The state of a memory store; it is the `StoreFacts` of changes."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.lock = threading.RLock()
        self.waiters = Waiters()
        self.records: dict[str, Record] = {}
        self.arrivals: dict[str, int] = {}
        """job id -> the order in which the record was created."""
        self.entries: dict[str, set[Entry]] = {}
        self.indexes: dict[tuple[str, ...], list[tuple[int | str, ...]]] = defaultdict(list)
        self.large: dict[str, dict[str, str]] = {}
        """The large values of each record, by field; the record holds their markers."""
        self.stops: dict[str, DrainingLease] = {}
        self.kept: dict[str, list[_Kept]] = defaultdict(list)
        self.feed: deque[Event] = deque(maxlen=FEED_KEPT)
        self.feed_end = 0
        self.tombstones: dict[str, tuple[str, int]] = {}
        self.claims: dict[str, tuple[int, str, list[str], int]] = {}
        self.ready: dict[str, int] = defaultdict(int)
        self.woken: set[str] = set()
        """Workers that were woken and have not noticed it yet."""
        self.values: dict[str, tuple[str, int, int | None]] = {}
        self.value_keys: list[str] = []
        """The keys of `values`, in order."""
        self.limits = LimitTable()
        self.scheduled: dict[tuple[str, ...], None] = {}
        """The indexes of scheduled records, so that a claim does not look for them among all indexes."""
        self.subqueues = Subqueues()
        self.open_ends: Counter[tuple[int, str, str]] = Counter()
        self.ledger = Ledger()
        """Ends in minutes that are not closed: (minute, series, metric) -> how many."""
        self.rollups: dict[bool, dict[int, str]] = {False: {}, True: {}}
        """The texts of closed minutes (False) and hours (True), by number."""
        self.rollups_dropped: dict[bool, int | None] = {False: None, True: None}
        self.closing: set[str] = set()
        """Groups that closed while jobs waited for them, until a sweep finds that none waits any more."""
        self.kept_since: dict[str, int] = {}
        """job id -> since when the retention of an ended record is counted, if that is not its end."""
        self.removed_members: dict[str, dict[str, str]] = {}
        """Removed members of groups that the `after` of a record names: group -> status -> id."""
        self.last_sweep: int | None = None
        self.hold: Hold | None = None
        self.fence = self.now = self.kv_version = self._arrived = 0
        self._clock = clock
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Continue with a copy of the parent's jobs."""
        self.lock = threading.RLock()

    def tick(self) -> int:
        """Read the clock. If it stepped back by at most CLOCK_LEAD, the store's clock stands still."""
        now = self._clock()
        self.now = self.now if now < self.now <= now + CLOCK_LEAD else now
        return self.now

    # --- Facts ---

    def stopping(self, job_id: str) -> DrainingLease | None:
        return self.stops.get(job_id)

    def key_is_draining(self, key: str) -> bool:
        return any(stop.key == key for stop in self.stops.values())

    def key_owner_id(self, key: str) -> str | None:
        """Return the id of the record with a unique key that was created last, regardless of the clock."""
        ids = (str(order[-1]) for order in self.indexes.get(("key", key), ()))
        return max(ids, key=self.arrivals.__getitem__, default=None)

    def key_owner_status(self, key: str, job_id: str) -> str:
        key_owner_id = self.key_owner_id(key)
        return self.records[key_owner_id]["status"] if key_owner_id is not None and key_owner_id != job_id else ""

    def knows(self, group: str) -> bool:
        kind, _, name = group.partition(":")
        return ("label", members_pair(group)) in self.indexes if kind == "group" else name in self.records

    def other(self, job_id: str) -> Record | None:
        return self.records.get(job_id)

    ended = other

    def is_open(self, group: str) -> bool:
        kind, _, job_id = group.partition(":")
        if kind != "job":
            return ("member", group, "") in self.indexes or any(
                group in stop.groups.split(US) for stop in self.stops.values()
            )
        return job_id in self.stops or "completed" not in self.records.get(job_id, _ENDED)

    def ended_in(self, group: str, statuses: Collection[str]) -> str | None:
        kind, _, job_id = group.partition(":")
        record = self.records.get(job_id, {}) if kind == "job" else {}
        if record.get("status") in statuses and "completed" in record:
            return job_id
        for status in statuses:
            if found := self.indexes.get(("member", group, status)):
                return str(found[0][-1])
        removed = self.removed_members.get(group, {})
        return next((removed[status] for status in statuses if status in removed), None)

    def value_of(self, key: str) -> str | None:
        value, version, until = self.values.get(key, ("", 0, None))
        return value if version and (until is None or until > self.now) else None

    def put_value(self, key: str, value: str, until: int | None) -> int:
        """Set a value of the key-value store and return its version."""
        self.kv_version += 1
        if key not in self.values:
            insort(self.value_keys, key)
        self.values[key] = (value, self.kv_version, until)
        return self.kv_version

    def delete_value(self, key: str) -> None:
        """Delete a value of the key-value store, if it exists."""
        if self.values.pop(key, None) is not None:
            del self.value_keys[bisect_left(self.value_keys, key)]

    def keys_after(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the keys of values that begin with a prefix and follow `after`, in order. Change none meanwhile."""
        first = max(bisect_left(self.value_keys, prefix), bisect_right(self.value_keys, after))
        keys = (self.value_keys[at] for at in range(first, len(self.value_keys)))
        return takewhile(lambda key: key.startswith(prefix), keys)

    def next_fence(self) -> int:
        self.fence = max(self.fence + 1, self.now)
        return self.fence

    # --- records and indexes ---

    def parked(self, job_id: str, record: Record) -> bool:
        """Return whether a draining lease keeps a record from being claimed."""
        key = record.get("unique_key", "")
        return job_id in self.stops or bool(key and self.key_is_draining(key))

    def place(self, job_id: str) -> None:
        """Update the indexes for the current record of an id."""
        record = self.records.get(job_id)
        if record is None:
            self.arrivals.pop(job_id, None)
        old = self.entries.pop(job_id, set())
        new = set[Entry]()
        if record is not None:
            new = index_entries(job_id, record, now=self.now, parked=self.parked(job_id, record))
        if job_id in self.kept_since:
            new = self._kept(job_id, new)
        for index, order in old - new:
            entries = self.indexes[index]
            del entries[bisect_left(entries, order)]
            if not entries:
                del self.indexes[index]
                self.scheduled.pop(index, None)
                if index[0] == "label" and index[1].startswith(AFTER):
                    self.forget_ends(index[1].removeprefix(AFTER))
            if index[0] == "claimable":
                self.subqueues.place(index[1], int(entries[0][0]) if entries else None)
            if index[0] == "slot":
                self.announce_freed_slot()
        for index, order in new - old:
            entries = self.indexes[index]
            insort(entries, order)
            if index[0] == "scheduled":
                self.scheduled[index] = None
            if index[0] == "claimable":
                self.subqueues.place(index[1], int(entries[0][0]))
                self.announce(queue_name(index[1]))
        if new:
            self.entries[job_id] = new

    def _kept(self, job_id: str, entries: set[Entry]) -> set[Entry]:
        """Return the index entries of a record with the time since when its retention is counted."""
        ended = {entry for entry in entries if entry[0] == ("ended",)}
        if not ended:
            del self.kept_since[job_id]
            return entries
        return entries - ended | {(("ended",), (self.kept_since[job_id], job_id))}

    def announce(self, queue: str) -> None:
        """Let one waiting worker know that a queue may have a job."""
        self.ready[queue] = min(READY_KEPT, self.ready[queue] + 1)

    def announce_freed_slot(self) -> None:
        """Let a waiting worker of each queue know that a lease has ended, so that a limit may have capacity."""
        for queue, ready in self.ready.items():
            if not ready and (("claimable", queue) in self.indexes or self.subqueues.has_turns(queue)):
                self.announce(queue)

    def turn_back(self, lease: int, ahead: int) -> None:
        """Move leases from a clock that was `ahead` to the current one, but not below `lease` from now."""
        bound, least = self.now + max(lease, CLOCK_LEAD), self.now + lease
        for expires, job_id in tuple(self.indexes.get(("lease",), ())):
            if int(expires) > bound:
                name = str(job_id)
                self.records[name] = {**self.records[name], "lease": str(max(least, int(expires) - ahead))}
                self.place(name)
        for job_id, stop in self.stops.items():
            if stop.expires > bound:
                self.stops[job_id] = replace(stop, expires=max(least, stop.expires - ahead))

    def promote(self) -> None:
        """Make scheduled records that are due claimable."""
        for index in tuple(self.scheduled):
            for due, job_id in tuple(islice(self.indexes[index], 100)):
                if int(due) > self.now:
                    break
                self.place(str(job_id))

    def gone(self, job_id: str) -> str:
        """Return the tombstone of removed records of an id, or empty."""
        kept, until = self.tombstones.get(job_id, ("", 0))
        return kept if until > self.now else ""

    def keep(self, job_id: str, change: Change, branch: int, effect: BranchResult, now: int) -> tuple[str, ...]:
        """Store the result of an applied branch, and return the groups with waiting jobs that it closed."""
        before = effect.before
        large, outdated = set_apart(change, effect.record, before) if effect.record is not None else ({}, [])
        stop = self.stops.pop(job_id, None) if effect.dropped is not None else None
        if effect.stopping is not None:
            self.stops[job_id] = effect.stopping
            self.woken.add(effect.stopping.worker)
        for key, value in effect.values.items():
            if value is None:
                self.delete_value(key)
            else:
                self.put_value(key, value, None)
        if effect.gates or effect.unstarted:
            self.limits.apply(effect, self.now)
        if effect.record is None:
            self.remove_values([job_id])
            gone = self.records.pop(job_id, None)
            if gone is not None:
                self.keep_end(job_id, gone)
                kept = operation_ids.tombstone(change.operation_id, branch, gone, self.gone(job_id), now)
                self.tombstones[job_id] = (kept, now + operation_ids.KEPT_MICROS)
        else:
            if (ended := effect.ended) is not None:
                self.open_ends.update(rollups.counted_end(ended))
            if (spender := effect.spender) is not None:
                self.ledger.count(spender, before, now, self.records)
            if large or outdated:
                left = {n: v for n, v in self.large.get(job_id, {}).items() if n not in outdated}
                self.large[job_id] = left | large
            self.records[job_id] = effect.record
            if job_id not in self.arrivals:
                self._arrived += 1
                self.arrivals[job_id] = self._arrived
        self.place(job_id)
        if stop is not None:
            waiting = self.key_owner_id(stop.key) if stop.key else None
            if waiting is not None:
                self.place(waiting)
            self.announce_freed_slot()
        if effect.event:
            self.append_event(job_id, effect, now)
        if effect.record is None:
            self.kept.pop(job_id, None)
        checked = effect.groups_to_check(job_id)
        closed = tuple(group for group in checked if self.is_to_release(group))
        self.closing.update(closed)
        return closed

    def is_to_release(self, group: str) -> bool:
        """Return whether a group is closed while jobs wait for it, or whether orphans are open."""
        if group.startswith(ORPHANS):
            return ("member", "children:" + group.removeprefix(ORPHANS), "") in self.indexes
        return ("held", group) in self.indexes and not self.is_open(group)

    def keep_end(self, job_id: str, record: Record) -> None:
        """Keep the status of a removed record, if the `after` of another one names it, or a batch that has not ended."""
        for group in groups_of(job_id, record):
            if self.needs_ends(group):
                self.removed_members.setdefault(group, {})[record["status"]] = job_id
        self.forget_ends(f"group:{job_id}")

    def needs_ends(self, group: str) -> bool:
        """Return whether a record names a group in its `after`, or a batch that has not ended is named so."""
        return is_of_open_batch(group, self.records) or ("label", AFTER + group) in self.indexes

    def forget_ends(self, group: str) -> None:
        """Delete what is kept of the removed members of a group, unless it is needed."""
        if group in self.removed_members and not self.needs_ends(group):
            del self.removed_members[group]

    def remove_values(self, job_ids: Iterable[str]) -> None:
        """Remove what is stored beside removed records: large values, kept results, what descendants spent."""
        for job_id in job_ids:
            self.large.pop(job_id, None)
            self.ledger.remove(job_id)
            for key in list(self.keys_after(results_prefix(job_id))):
                self.delete_value(key)

    def append_event(self, job_id: str, effect: BranchResult, now: int) -> None:
        """Append the event of an applied branch."""
        event = Event.stored(job_id, effect.version, effect.event, now, effect.text)
        self.feed.append(event)
        self.feed_end += 1
        if effect.keep != "feed":
            kept = self.kept[job_id]
            kept.append(_Kept(event, effect.keep == "life"))
            passing = [entry for entry in kept if not entry.always]
            if len(passing) > EVENTS_KEPT:
                kept.remove(passing[0])

    def close_minutes(self) -> None:
        """Add the ends of the minutes that are over to the rollups."""
        current = self.now // rollups.MINUTE
        over = {key: count for key, count in self.open_ends.items() if key[0] < current}
        if not over:
            return
        for hourly, texts in self.rollups.items():
            for number, added in rollups.by_number(over, hourly=hourly).items():
                texts[number] = rollups.merge(texts.get(number, ""), added)
            sizes = {number: len(text.encode()) for number, text in texts.items()}
            for number in rollups.outdated(sizes, self.now, hourly=hourly):
                del texts[number]
                self.rollups_dropped[hourly] = max(number, self.rollups_dropped[hourly] or 0)
        for key in over:
            del self.open_ends[key]

    def trim(self) -> None:
        """Remove old events from the feed, except the newest."""
        bound = from_micros(self.now - int(FEED_SECONDS * 1_000_000))
        while len(self.feed) > 1 and (at := self.feed[0].at) is not None and at < bound:
            self.feed.popleft()

    def forget(self) -> None:
        """Remove expired values, and what only repeated requests would need."""
        kept_until: tuple[dict[str, Any], ...] = (self.tombstones, self.claims)
        for found in kept_until:
            for name in [name for name, (*_, until) in found.items() if until <= self.now]:
                del found[name]
        for key in [key for key, (*_, until) in self.values.items() if until is not None and until <= self.now]:
            self.delete_value(key)
        self.subqueues.forget()

    def job(self, job_id: str, *, whole: bool = False) -> Job | None:
        """Return the job of an id, with `waiting_for`; `whole`: with its large values."""
        record = self.records.get(job_id)
        if record is None:
            return None
        if record.get("ready") and self.parked(job_id, record):
            record = {**record, "waiting_for": WAITING_FOR_STOP}
        if whole and job_id in self.large:
            record = {**record, **self.large[job_id]}
        return Job.stored(job_id, record)


def system_micros() -> int:
    """Return the clock of this machine, in microseconds since 1970."""
    return time.time_ns() // 1000
