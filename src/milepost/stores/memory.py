"""The store in the memory of one process: dicts, sorted lists and a lock. The reference that the others are held against.

Owns nothing that outlives its process. Both faces share one `Memory`, so a blocking twin sees the same jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from milepost.core import change as changes
from milepost.core.change import Stopping
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.stores.memory_state import CLAIMS_KEPT_MICROS, READY_KEPT, Memory, system_micros
from milepost.stores.protocol import (
    LAYOUT,
    Applied,
    Claim,
    Due,
    FeedEvents,
    Fitness,
    Item,
    Outcome,
    Pass,
    Position,
    Select,
    Write,
)


class MemoryStore:
    """Jobs in this process, gone with it. `clock` gives microseconds since 1970; tests bring one that stands still."""

    def __init__(self, *, blocking: bool = True, clock: Callable[[], int] = system_micros) -> None:
        self.blocking = blocking
        self._memory = Memory(clock)
        self.url = f"memory://{id(self._memory):x}"

    def twin(self, *, blocking: bool) -> MemoryStore:
        """The same jobs through the other face."""
        if blocking == self.blocking:
            return self
        twin = object.__new__(MemoryStore)
        twin.blocking, twin.url, twin._memory = blocking, self.url, self._memory
        return twin

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> Applied:
        with self._memory.lock:
            self._memory.tick()
            outcomes = [self._write(*write) for write in writes]
            claimed = self._claim(claim) if claim is not None else []
            queues = claim.queues if claim is not None else ()
            due = [order[0][0] for queue in queues if (order := self._memory.indexes.get(("scheduled", queue)))]
            self._memory.bell.ring()
            return Applied(outcomes, claimed, int(min(due)) if due else None, self._memory.now)

    def _write(self, job_id: str, change: changes.Change, answer: bool) -> Outcome:
        memory = self._memory
        record = memory.records.get(job_id)
        born, removed, until = memory.tombstones.get(job_id, ("", "", 0))
        if until > memory.now and change.op in (born, removed):
            return Outcome(0 if change.op == removed else -1, None, repeated=True)
        index = changes.repeated(change, record)
        if index >= 0:
            return Outcome(index, memory.job(job_id), repeated=True)
        index = changes.fit(change, job_id, record, memory)
        if index < 0:
            holder = memory.holder(change.key) if change.key is not None and record is None else None
            return Outcome(-1, memory.job(job_id), holder=holder)
        memory.keep(job_id, change.op, changes.perform(change, index, job_id, record, memory), memory.now)
        return Outcome(index, memory.job(job_id) if answer else None)

    def _claim(self, claim: Claim) -> list[Job]:
        memory = self._memory
        op, ids, until = memory.claims.get(claim.worker, ("", [], 0))
        if op != claim.op or until <= memory.now:
            memory.promote()
            ids = []
            for start in claim.starts:
                job_id = self._next(claim, start)
                if job_id is None:
                    break
                ids.append(job_id)
            memory.claims[claim.worker] = (claim.op, ids, memory.now + CLAIMS_KEPT_MICROS)
        return [job for job in map(memory.job, ids) if job is not None]

    def _next(self, claim: Claim, start: changes.Change) -> str | None:
        """Start the foremost job of the open queues; what does not fit (past its deadline) is passed over."""
        memory = self._memory
        heads = sorted(
            order
            for queue, limit in claim.queues.items()
            if self._open(queue, limit)
            for order in memory.indexes.get(("claimable", queue), ())[: None if claim.job_id else READY_KEPT]
        )
        for *_, job_id in heads:
            if claim.job_id in (None, job_id) and self._write(str(job_id), start, False).accepted:
                return str(job_id)
        return None

    def _open(self, queue: str, limit: int | None) -> bool:
        most, paused = self._memory.limits.get(queue, (None, False))
        most = limit if most is None else most
        return not paused and (most is None or self._held(queue) < most)

    def _held(self, slot: str) -> int:
        live = len(self._memory.indexes.get(("slot", slot), ()))
        return live + sum(stop.slot == slot for stop in self._memory.stops.values())

    async def beat(
        self, writes: Sequence[Write], leases: Sequence[tuple[str, str]], micros: int | None
    ) -> tuple[list[Outcome], list[str]]:
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
            memory.stops[job_id] = Stopping(stop.token, until, stop.key, stop.slot, stop.worker)
        return "stopping"

    async def get(self, job_id: str) -> Job | None:
        with self._memory.lock:
            return self._memory.job(job_id)

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

    def _lists(self, select: Select) -> list[tuple[str, ...]]:
        return [
            index
            for index in self._memory.indexes
            if index[0] == "list"
            and (not select.types or index[1] in select.types)
            and (not select.statuses or index[2] in select.statuses)
        ]

    async def count(self, select: Select) -> int | None:
        narrow = bool(select.types or select.statuses)
        if select.created_after is not None or select.created_before is not None:
            return None
        if len(select.labels) + select.stalled + narrow > 1:
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
        with memory.lock:
            if position is None:
                return FeedEvents([], str(memory.feed_end))
        start = int(position)
        with memory.lock:
            if start > memory.feed_end:  # a position in an earlier process
                return FeedEvents([], str(memory.feed_end), lost=True)
        if timeout > 0:
            await memory.bell.wait(lambda: memory.feed_end > start, timeout, blocking=self.blocking)
        with memory.lock:
            begin = memory.feed_end - len(memory.feed)
            events = list(islice(memory.feed, max(0, start - begin), max(0, start - begin) + limit))
            return FeedEvents(events, str(max(start, begin) + len(events)), lost=0 < start < begin)

    async def idle(self, worker: str, queues: Sequence[str], timeout: float) -> bool:
        memory = self._memory

        def woken() -> bool:
            if worker in memory.nudged:
                memory.nudged.discard(worker)
                return True
            memory.tick()
            memory.promote()
            for queue in queues:
                if memory.ready.get(queue):
                    memory.ready[queue] -= 1
                    return True
            return False

        return await memory.bell.wait(woken, timeout, blocking=self.blocking)

    async def nudge(self, worker: str) -> None:
        with self._memory.lock:
            self._memory.nudged.add(worker)
            self._memory.bell.ring()

    async def sweep(self, *, lease: float, interval: float, limit: int = 200) -> Pass:
        memory = self._memory
        with memory.lock:
            now, last = memory.tick(), memory.last_sweep
            if last is not None and now - last < interval * 500_000:
                return Pass([], skipped=True)
            memory.last_sweep = now
            if memory.hold is None and last is not None and now - last > lease * 500_000:
                memory.hold = now + int(lease * 1_000_000)
            held = memory.hold is not None and now < memory.hold
            memory.hold = memory.hold if held else None
            memory.promote()
            due = list(islice(self._due(now, held), limit + 1))
            return Pass(due[:limit], held=held, more=len(due) > limit)

    def _due(self, now: int, held: bool) -> Iterator[Due]:
        memory = self._memory
        for kind in ("deadline", "stale") if held else ("lease", "deadline", "stale"):
            for order in tuple(memory.indexes.get((kind,), ())):
                if int(order[0]) > now:
                    break
                job = memory.job(str(order[-1]))
                if job is not None:
                    company = len(memory.indexes.get(("worker", job.worker or ""), ())) if kind == "lease" else 1
                    yield Due(kind, job.job_id, job, company=company)
        for job_id, stop in () if held else tuple(memory.stops.items()):
            if stop.expires <= now:
                yield Due("stopping", job_id, memory.job(job_id), stop.token)

    async def purge(self, *, ttl: float, limit: int = 500) -> int:
        memory = self._memory
        with memory.lock:
            bound = memory.tick() - int(ttl * 1_000_000)
            gone = [
                str(job_id) for ended, job_id in islice(memory.indexes.get(("ended",), ()), limit) if int(ended) < bound
            ]
            for job_id in gone:
                del memory.records[job_id]
                memory.kept.pop(job_id, None)
                memory.place(job_id)
            for job_id in [j for j, (*_, until) in memory.tombstones.items() if until <= memory.now]:
                del memory.tombstones[job_id]
            return len(gone)

    async def limits(self) -> dict[str, tuple[int | None, bool]]:
        with self._memory.lock:
            return dict(self._memory.limits)

    async def set_limit(self, queue: str, limit: int | None, paused: bool) -> None:
        with self._memory.lock:
            self._memory.limits[queue] = (limit, paused)
            if limit is None and not paused:
                del self._memory.limits[queue]
            self._memory.announce(queue)
            self._memory.bell.ring()

    async def stoppings(self) -> list[tuple[str, str, int]]:
        with self._memory.lock:
            return [(job_id, stop.token, stop.expires) for job_id, stop in self._memory.stops.items()]

    async def shelf_get(self, key: str) -> Item | None:
        with self._memory.lock:
            value, version, until = self._memory.shelf.get(key, ("", 0, 0))
            fresh = version and (until is None or until > self._memory.tick())
            return Item(key, value, version) if fresh else None

    async def shelf_put(
        self, key: str, value: str, *, version: int | None = None, ttl: float | None = None
    ) -> int | None:
        with self._memory.lock:
            memory = self._memory
            item = await self.shelf_get(key)
            if version is not None and version != (item.version if item is not None else 0):
                return None
            memory.shelf_versions += 1
            until = None if ttl is None else memory.tick() + int(ttl * 1_000_000)
            memory.shelf[key] = (value, memory.shelf_versions, until)
            return memory.shelf_versions

    async def shelf_delete(self, key: str) -> bool:
        with self._memory.lock:
            there = await self.shelf_get(key) is not None
            self._memory.shelf.pop(key, None)
            return there

    async def shelf_scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[Item]:
        with self._memory.lock:
            keys = sorted(key for key in self._memory.shelf if key.startswith(prefix) and key > after)
            items = [item for key in keys if (item := await self.shelf_get(key)) is not None]
            return items[:limit]

    async def examine(self) -> Fitness:
        return Fitness("memory", "", LAYOUT, "the life of this process", ())

    async def now(self) -> int:
        with self._memory.lock:
            return self._memory.tick()

    async def close(self) -> None:
        """Nothing to give back."""
