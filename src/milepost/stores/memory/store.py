"""The store in the memory of one process, and the reference that other stores are compared with.

The blocking and the async store share one `MemoryState`, so both see the same jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from math import inf
from typing import Literal

from milepost.core import rollups
from milepost.core.defaults import HEARTBEAT
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.ledger import Book
from milepost.core.limits import earliest
from milepost.core.rollups import Rollups
from milepost.core.transitions import operations as changes
from milepost.core.transitions.change import Change
from milepost.stores.held_jobs import release_held
from milepost.stores.index_entries import is_elsewhere
from milepost.stores.memory.claims import MemoryClaims
from milepost.stores.memory.limits import MemoryLimits
from milepost.stores.memory.retention import MemoryFamily
from milepost.stores.memory.state import MemoryState, system_micros
from milepost.stores.protocol import (
    LAYOUT,
    MEMBER_STATES,
    ApplyResult,
    Claim,
    DueItem,
    FeedEvents,
    HealthReport,
    Position,
    PurgeResult,
    Select,
    SweepResult,
    Write,
    WriteResult,
)
from milepost.stores.retention import KEPT_PER_REMOVED, purgeable
from milepost.stores.store_values import KeyValue, validate_entry
from milepost.stores.sweep import hold_of
from milepost.stores.sync_bridge import copy_with, other_form


class MemoryStore(MemoryLimits, MemoryClaims):
    """Jobs in this process, lost when it ends. `clock` returns microseconds since 1970."""

    shared = False
    report_interval = HEARTBEAT

    def __init__(self, *, blocking: bool = True, clock: Callable[[], int] = system_micros) -> None:
        self.blocking = blocking
        self._memory = MemoryState(clock)
        self.url = f"memory://{id(self._memory):x}"

    def with_blocking(self, *, blocking: bool) -> MemoryStore:
        """Return a blocking or an async store on the same jobs, the same object at each call."""
        if blocking == self.blocking:
            return self
        return other_form(self, lambda: copy_with(self, blocking=blocking, _other=self))

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        with self._memory.lock:
            self._memory.tick()
            outcomes = self._writes(writes)
            claimed, reopens = self._claim(claim) if claim is not None else ([], None)
            next_due = earliest(reopens, *self._next_due(claim.queues)) if claim is not None else None
            if closed := [group for one in outcomes for group in one.closed]:
                await release_held(self, closed)
            self._memory.waiters.notify_all()
            return ApplyResult(outcomes, claimed, next_due, self._memory.now)

    def _next_due(self, queues: Iterable[str]) -> Iterator[int]:
        """Yield when the next scheduled job of each queue is due."""
        for queue in queues:
            if scheduled := self._memory.indexes.get(("scheduled", queue)):
                yield int(scheduled[0][0])

    def _writes(self, writes: Sequence[Write]) -> list[WriteResult]:
        return [self._write(*write, whole=True) for write in writes]

    async def _apply_held(self, writes: Sequence[Write]) -> list[WriteResult]:
        return self._writes(writes)

    async def held_by(self, group: str, limit: int) -> list[str]:
        with self._memory.lock:
            return [str(job_id) for _, job_id in self._memory.indexes.get(("held", group), ())[:limit]]

    async def open_members(self, group: str, limit: int) -> list[str]:
        with self._memory.lock:
            return [str(job_id) for (job_id,) in self._memory.indexes.get(("member", group, ""), ())[:limit]]

    async def member_counts(self, groups: Sequence[str]) -> list[dict[str, int]]:
        with self._memory.lock:
            get = self._memory.indexes.get
            return [{one: len(ids) for one in MEMBER_STATES if (ids := get(("member", name, one)))} for name in groups]

    def _write(self, job_id: str, change: Change, answer: bool, *, whole: bool = False) -> WriteResult:
        memory = self._memory
        record = memory.records.get(job_id)
        decision = changes.decide(change, job_id, record, memory.gone(job_id), memory)
        index = decision.branch
        if decision.repeated:
            return WriteResult(index, memory.job(job_id, whole=whole), repeated=True)
        if index < 0:
            key_owner_id = memory.key_owner_id(change.key) if change.key is not None and record is None else None
            return WriteResult(-1, memory.job(job_id, whole=whole), key_owner_id=key_owner_id, wait=decision.wait)
        effect = changes.apply_branch(change, index, job_id, record, memory)
        closed = memory.keep(job_id, change, index, effect, memory.now)
        return WriteResult(index, memory.job(job_id, whole=whole) if answer else None, closed=closed)

    async def heartbeat(
        self, writes: Sequence[Write], leases: Sequence[tuple[str, str]], micros: int | None
    ) -> tuple[list[WriteResult], list[str]]:
        with self._memory.lock:
            return (await self.apply(writes)).outcomes, await self.renew(leases, micros)

    async def renew(self, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
        with self._memory.lock:
            self._memory.tick()
            return [self._renew(job_id, token, micros) for job_id, token in leases]

    def _renew(self, job_id: str, token: str, micros: int | None) -> str:
        memory = self._memory
        until = memory.now + micros if micros is not None else 0
        record = memory.records.get(job_id)
        if record is not None and record.get("token") == token:
            if until:
                memory.records[job_id] = {**record, "lease": str(until)}
                memory.place(job_id)
            return "live"
        stop = memory.stops.get(job_id)
        if stop is None or stop.token != token:
            return "lost"
        if until:
            memory.stops[job_id] = replace(stop, expires=until)
        return "stopping"

    async def get(self, job_id: str) -> Job | None:
        with self._memory.lock:
            return self._memory.job(job_id, whole=True)

    async def select(self, select: Select, limit: int, after: Position | None = None) -> list[Job]:
        with self._memory.lock:
            memory = self._memory
            wanted: set[tuple[int | str, ...]] | None = None
            for index in [
                *(("label", f"{k}={v}") for k, v in select.labels),
                *([("stalled",)] if select.stalled else []),
            ]:
                found = set(memory.indexes.get(index, ()))
                wanted = found if wanted is None else wanted & found
            orders = [
                order
                for index in self._lists(select)
                for order in memory.indexes[index]
                if (wanted is None or order in wanted)
                and (after is None or order < after)
                and (select.created_after is None or int(order[0]) >= select.created_after)
                and (select.created_before is None or int(order[0]) < select.created_before)
            ]
            orders.sort(reverse=True)
            return [job for *_, job_id in orders[:limit] if (job := memory.job(str(job_id))) is not None]

    async def oldest(self, status: str, limit: int) -> list[Job]:
        with self._memory.lock:
            lists = self._lists(Select(statuses=(status,)))
            orders = sorted(order for index in lists for order in self._memory.indexes[index][:limit])[:limit]
            return [job for *_, job_id in orders if (job := self._memory.job(str(job_id))) is not None]

    def _lists(self, select: Select) -> list[tuple[str, ...]]:
        return [
            index
            for index in self._memory.indexes
            if index[0] == "list"
            and (not select.types or index[1] in select.types)
            and (not select.statuses or index[2] in select.statuses)
        ]

    async def count(self, select: Select) -> int | None:
        if not select.is_counted:
            return None
        with self._memory.lock:
            if select.labels:
                key, value = select.labels[0]
                return len(self._memory.indexes.get(("label", f"{key}={value}"), ()))
            if select.stalled:
                return len(self._memory.indexes.get(("stalled",), ()))
            return sum(len(self._memory.indexes[index]) for index in self._lists(select))

    async def counts(self) -> dict[tuple[str, str], int]:
        with self._memory.lock:
            return {(i[1], i[2]): len(self._memory.indexes[i]) for i in self._lists(Select())}

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        with self._memory.lock:
            kept = (entry.event for entry in self._memory.kept.get(job_id, ()) if entry.event.version > after)
            return list(islice(kept, limit))

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        memory = self._memory
        if position is None:
            with memory.lock:
                return FeedEvents([], str(memory.feed_end))
        start = int(position)

        async def look() -> tuple[FeedEvents, float | None]:
            with memory.lock:
                if start > memory.feed_end:  # the position is from an earlier process
                    return FeedEvents([], str(memory.feed_end), lost=True), None
                begin = max(start, memory.feed_end - len(memory.feed))
                left = memory.feed_end - begin  # counted from the end, where readers are
                events = list(islice(reversed(memory.feed), max(0, left - limit), left))[::-1]
                found = FeedEvents(events, str(begin + len(events)), lost=0 < start < begin)
                return found, inf if start == memory.feed_end else None

        return await memory.waiters.wait(look, timeout, feed=True, blocking=self.blocking)

    async def wait_for_work(self, worker: str, queues: Sequence[str], timeout: float) -> bool | Literal["worker"]:
        memory = self._memory

        async def look() -> tuple[bool | Literal["worker"], float | None]:
            with memory.lock:
                if worker in memory.woken:
                    memory.woken.discard(worker)
                    return "worker", None
                memory.tick()
                memory.promote()
                for queue in queues:
                    if memory.ready.get(queue):
                        memory.ready[queue] -= 1
                        return True, None
                return False, inf

        return await memory.waiters.wait(look, timeout, feed=False, blocking=self.blocking)

    async def wake(self, worker: str) -> None:
        with self._memory.lock:
            self._memory.woken.add(worker)
            self._memory.waiters.notify_all()

    async def sweep(
        self, *, lease: float, interval: float, limit: int = 200, task_queue: str | None = None, unreached: float = 0.0
    ) -> SweepResult:
        memory = self._memory
        with memory.lock:
            now, last, micros = memory.tick(), memory.last_sweep, int(lease * 1_000_000)
            if last is not None and 0 <= now - last < interval * 500_000:
                return SweepResult([], skipped=True)
            memory.last_sweep = now
            due_until, memory.hold = hold_of(now, last, memory.hold, micros)
            if last is not None and last > now:
                memory.turn_back(micros, last - now)
            memory.promote()
            memory.trim()
            memory.close_minutes()
            memory.closing = {one for one in memory.closing if memory.is_to_release(one)}
            await release_held(self, memory.closing.copy())
            others_from = now - int(unreached * 1_000_000)
            due: list[DueItem] = []
            more = False
            for found in self._due(now, due_until, task_queue, others_from):
                part = list(islice(found, limit + 1))
                due += part[:limit]
                more = more or len(part) > limit
            return SweepResult(due, held=due_until is None or due_until < now, more=more)

    def _due(
        self, now: int, due_until: int | None, task_queue: str | None, others_from: int
    ) -> Iterator[Iterator[DueItem]]:
        memory = self._memory

        def records(kind: str, until: int) -> Iterator[DueItem]:
            for order in tuple(memory.indexes.get((kind,), ())):
                if int(order[0]) > until:
                    break
                job = memory.job(str(order[-1]))
                if job is None or (kind == "stale" and int(order[0]) > others_from and is_elsewhere(job, task_queue)):
                    continue
                sibling_leases = len(memory.indexes.get(("worker", job.worker or ""), ())) if kind == "lease" else 1
                yield DueItem(kind, job.job_id, job, sibling_leases=sibling_leases)

        if due_until is not None:
            yield records("lease", due_until)
        yield records("deadline", now)
        yield records("stale", now)
        if due_until is not None:
            stops = [(job_id, stop) for job_id, stop in memory.stops.items() if stop.expires <= due_until]
            yield (DueItem("stopping", job_id, memory.job(job_id), stop.token) for job_id, stop in stops)

    async def purge(self, *, before: int, limit: int = 500) -> PurgeResult:
        memory, size = self._memory, (KEPT_PER_REMOVED + 1) * limit
        with memory.lock:
            old = takewhile(lambda order: int(order[0]) < before, memory.indexes.get(("ended",), ()))
            due = [str(job_id) for _, job_id in islice(old, size)]
            gone, later = await purgeable(MemoryFamily(memory), due, bound=before, now=memory.tick(), limit=limit)
            memory.kept_since.update(later)
            for job_id in later:
                memory.place(job_id)
            for job_id in gone:
                memory.keep_end(job_id, memory.records.pop(job_id))
                memory.kept.pop(job_id, None)
                memory.place(job_id)
            memory.remove_values(gone)
            memory.trim()
            memory.forget()
            memory.ledger.forget(memory.now)
            return PurgeResult(len(gone), len(gone) >= limit or len(due) == size)

    async def rollups(self, since: int, *, hourly: bool = False) -> Rollups:
        memory, width = self._memory, rollups.RESOLUTIONS[hourly].width
        with memory.lock:
            closed = [(number, text) for number, text in memory.rollups[hourly].items() if number >= since // width]
            still_open = [(*key, n) for key, n in memory.open_ends.items() if key[0] >= since // rollups.MINUTE]
            complete = rollups.complete_since(memory.tick(), memory.rollups_dropped[hourly], hourly=hourly)
        return Rollups(rollups.assembled(closed, still_open, hourly=hourly), complete)

    async def usage(self, books: Sequence[str]) -> list[Book]:
        with self._memory.lock:
            return [self._memory.ledger.read(book) for book in books]

    async def draining_leases(self) -> list[tuple[str, str, int]]:
        with self._memory.lock:
            return [(job_id, stop.token, stop.expires) for job_id, stop in self._memory.stops.items()]

    async def kv_get(self, key: str) -> KeyValue | None:
        with self._memory.lock:
            value, version, until = self._memory.values.get(key, ("", 0, 0))
            exists = version and (until is None or until > self._memory.tick())
            return KeyValue(key, value, version) if exists else None

    async def kv_put(self, key: str, value: str, *, version: int | None = None, ttl: float | None = None) -> int | None:
        validate_entry(key, value)
        with self._memory.lock:
            memory = self._memory
            item = await self.kv_get(key)
            if version is not None and version != (item.version if item is not None else 0):
                return None
            return memory.put_value(key, value, None if ttl is None else memory.tick() + int(ttl * 1_000_000))

    async def kv_delete(self, key: str) -> bool:
        with self._memory.lock:
            there = await self.kv_get(key) is not None
            self._memory.delete_value(key)
            return there

    async def kv_scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[KeyValue]:
        with self._memory.lock:
            items: list[KeyValue] = []
            for key in self._memory.keys_after(prefix, after):
                if len(items) >= limit:
                    break
                if (item := await self.kv_get(key)) is not None:
                    items.append(item)
            return items

    async def check_health(self) -> HealthReport:
        return HealthReport("memory", "", LAYOUT, "until this process ends", ())

    async def now(self) -> int:
        with self._memory.lock:
            return self._memory.tick()

    async def close(self) -> None:
        """Do nothing; there are no connections."""
