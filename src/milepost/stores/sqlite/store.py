"""The SQLite store: the verbs of `protocol.Store`, each one piece of work on the port. Owns what a verb is made of and
its waiting; knows no SQL and no lifecycle.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from milepost.core.defaults import FEED_KEPT
from milepost.core.errors import InvalidInput
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.packing import unpack
from milepost.stores.protocol import (
    Applied,
    Claim,
    FeedEvents,
    Fitness,
    Item,
    Outcome,
    Pass,
    Position,
    Select,
    Write,
)
from milepost.stores.sqlite import claiming, listing, shelving, upkeep
from milepost.stores.sqlite.fitness import examine
from milepost.stores.sqlite.place import Place, path_of, system_micros
from milepost.stores.sqlite.port import Port
from milepost.stores.sqlite.transaction import Reading, Transaction

T = TypeVar("T")

TRIMMING_SECONDS = 0.05
"""How long one sweep or purge goes on trimming the feed, in transactions of a few milliseconds."""


class SQLiteStore:
    """Jobs in one file of this machine. Raises StoreUnavailable, StoreFull, OutcomeUnknown and LayoutMismatch.

    `path` may be a ``sqlite:///`` URL. `synchronous` is FULL (an acknowledged write survives power loss) or NORMAL
    (it survives the process). `patience` is how many seconds to wait for the lock of another process. `clock` gives
    microseconds since 1970. The file is opened at the first use.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        blocking: bool = True,
        namespace: str = "milepost",
        synchronous: str = "FULL",
        patience: float = 10.0,
        clock: Callable[[], int] = system_micros,
    ) -> None:
        text = os.fspath(path)
        text = path_of(text) if text[:7].lower() == "sqlite:" else os.path.expanduser(text)
        if not text or text == ":memory:" or "\0" in text:
            raise InvalidInput("path", f"{text!r} names no file; write jobs.db, or use memory://")
        if synchronous.upper() not in ("FULL", "NORMAL"):
            raise InvalidInput("synchronous", f"{synchronous!r:.40} must be FULL or NORMAL")
        if not namespace or "\0" in namespace:
            raise InvalidInput("namespace", "must be text that is not empty")
        if namespace.lower().startswith("sqlite_"):
            raise InvalidInput("namespace", f"{namespace!r:.80} begins with sqlite_, which SQLite keeps for itself")
        self.blocking = blocking
        self._place = Place(os.path.realpath(text), namespace, synchronous.upper(), patience, clock)
        self.url = f"sqlite:///{self._place.path}#{namespace}"
        self._port = Port(self._place, blocking=blocking)
        self._served: dict[str, Mapping[str, int | None]] = {}

    def twin(self, *, blocking: bool) -> SQLiteStore:
        """The same jobs over a port of that kind; itself when it is one, since its connections are guarded by locks."""
        if blocking == self.blocking:
            return self
        place = self._place
        return SQLiteStore(
            place.path, blocking=blocking, namespace=place.namespace, synchronous=place.synchronous,
            patience=place.patience, clock=place.clock,
        )  # fmt: skip

    # --- writing ---

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> Applied:
        if claim is not None:
            self._served[claim.worker] = claim.queues
        if not writes and claim is None:
            return Applied([], [], None)
        bad: list[Exception] = []
        applied = await self._port.write(lambda tx: _apply(tx, writes, claim, bad))
        if bad:
            raise bad[0]
        return applied

    async def beat(
        self, writes: Sequence[Write], leases: Sequence[tuple[str, str]], micros: int | None
    ) -> tuple[list[Outcome], list[str]]:
        if not writes:
            return [], await self.renew(leases, micros)
        bad: list[Exception] = []
        answer = await self._port.write(lambda tx: (_apply(tx, writes, None, bad).outcomes, _renew(tx, leases, micros)))
        if bad:
            raise bad[0]
        return answer

    async def renew(self, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
        if not leases:
            return []
        if micros is None:
            return await self._port.read(lambda db: [_look(db, lease) for lease in leases])
        return await self._port.write(lambda tx: _renew(tx, leases, micros))

    # --- reading ---

    async def get(self, job_id: str) -> Job | None:
        def work(db: Reading) -> Job | None:
            row = db.row(job_id)
            return db.job(row) if row is not None else None

        return await self._port.read(work)

    async def select(self, select: Select, limit: int, after: Position | None = None) -> list[Job]:
        return await self._port.read(lambda db: listing.select(db, select, limit, after))

    async def count(self, select: Select) -> int | None:
        return await self._port.read(lambda db: listing.count(db, select))

    async def counts(self) -> dict[tuple[str, str], int]:
        return await self._port.read(lambda db: listing.pairs_of(db, Select()))

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        values = {"id": job_id, "after": after, "limit": limit}
        rows = await self._port.read(lambda db: db.all("events", values))
        return [Event.stored(job_id, version, kind, at, unpack(text)) for version, kind, at, text in rows]

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        if position is None:
            end, _ = await self._port.read(lambda db: db.end())
            return FeedEvents([], str(end))

        def work(db: Reading) -> FeedEvents:
            return _feed(db, int(position), limit)

        found = await self._port.read(work)
        if found.events or found.lost or timeout <= 0:
            return found
        deadline = time.monotonic() + timeout
        with self._port.watch.ear(feed=True, blocking=self.blocking) as ear:
            while True:
                ear.clear()
                found = await self._port.read(work)
                left = deadline - time.monotonic()
                if found.events or found.lost or left <= 0:
                    return found
                await ear.hear(left)

    # --- waiting ---

    async def idle(self, worker: str, queues: Sequence[str], timeout: float) -> bool:
        served = self._served.get(worker, {})
        wanted = {queue: served.get(queue) for queue in queues}
        deadline = time.monotonic() + timeout
        with self._port.watch.ear(feed=False, blocking=self.blocking) as ear:
            while True:
                ear.clear()
                woken, due = await self._port.read(lambda db: claiming.claimable(db, worker, wanted))
                if woken:
                    await self._take_nudge(worker)
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                wait = left if due is None else min(left, (due - self._place.tick()) / 1_000_000 + 0.0005)
                await ear.hear(max(wait, 0.0))

    async def _take_nudge(self, worker: str) -> None:
        if await self._port.read(lambda db: db.one("nudge_look", (worker,))) is not None:
            await self._port.write(lambda tx: tx.run("nudge_take", (worker,)))

    async def nudge(self, worker: str) -> None:
        await self._port.write(lambda tx: tx.nudge(worker))

    # --- the sweeper ---

    async def sweep(self, *, lease: float, interval: float, limit: int = 200) -> Pass:
        if await self._port.read(lambda db: upkeep.too_soon(db, interval)):
            return Pass([], skipped=True)
        found = await self._port.write(lambda tx: upkeep.sweep(tx, lease, interval, limit))
        if not found.skipped:
            await self._trim()
        return found

    async def purge(self, *, ttl: float, limit: int = 500) -> int:
        bound = await self.now() - int(ttl * 1_000_000)
        gone = 0
        while gone < limit:
            size = min(upkeep.PURGED_AT_ONCE, limit - gone)
            found = await self._port.write(lambda tx, size=size: upkeep.purge(tx, bound, size))  # type: ignore[misc]
            gone += found
            if found < size:
                break
        await self._port.write(upkeep.forget)
        await self._trim()
        return gone

    async def _trim(self) -> None:
        until = time.monotonic() + TRIMMING_SECONDS
        if await self._port.read(upkeep.overlong):
            while await self._port.write(upkeep.trim) and time.monotonic() < until:
                pass

    # --- limits ---

    async def limits(self) -> dict[str, tuple[int | None, bool]]:
        rows = await self._port.read(lambda db: db.all("limits"))
        return {queue: (most, bool(paused)) for queue, most, paused in rows}

    async def set_limit(self, queue: str, limit: int | None, paused: bool) -> None:
        def work(tx: Transaction) -> None:
            if limit is None and not paused:
                tx.run("limit_drop", (queue,))
            else:
                tx.run("limit_put", (queue, limit, int(paused)))
            tx.stirred = True

        await self._port.write(work)

    async def stoppings(self) -> list[tuple[str, str, int]]:
        rows = await self._port.read(lambda db: db.all("stoppings"))
        return [(job_id, token, expires) for job_id, token, expires in rows]

    # --- the shelf ---

    async def shelf_get(self, key: str) -> Item | None:
        return await self._port.read(lambda db: shelving.get(db, key))

    async def shelf_put(
        self, key: str, value: str, *, version: int | None = None, ttl: float | None = None
    ) -> int | None:
        return await self._port.write(lambda tx: shelving.put(tx, key, value, version, ttl))

    async def shelf_delete(self, key: str) -> bool:
        return await self._port.write(lambda tx: shelving.delete(tx, key))

    async def shelf_scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[Item]:
        return await self._port.read(lambda db: shelving.scan(db, prefix, after, limit))

    # --- the server ---

    async def examine(self) -> Fitness:
        return await self._port.read(examine)

    async def now(self) -> int:
        return await self._port.read(lambda db: db.place.tick(db.end()[1]))

    async def close(self) -> None:
        await self._port.close()


def _apply(tx: Transaction, writes: Sequence[Write], claim: Claim | None, bad: list[Exception]) -> Applied:
    """Each write for itself: one that cannot be made has written nothing and goes into `bad`; the others stand."""
    outcomes = []
    for write in writes:
        try:
            outcomes.append(tx.write(write))
        except (ValueError, TypeError, LookupError, AssertionError, OverflowError) as error:
            bad.append(error)
    if claim is None or bad:
        return Applied(outcomes, [], None)
    jobs = claiming.claim(tx, claim)
    return Applied(outcomes, jobs, claiming.next_due(tx, claim.queues), tx.now)


def _renew(tx: Transaction, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
    if micros is None:
        return [_look(tx, lease) for lease in leases]
    until = tx.now + micros
    return [
        "live" if tx.run("renew", (until, *lease)) else "stopping" if tx.run("renew_stop", (until, *lease)) else "lost"
        for lease in leases
    ]


def _look(db: Reading, lease: tuple[str, str]) -> str:
    if db.one("renew_look", lease) is not None:
        return "live"
    return "stopping" if db.one("renew_look_stop", lease) is not None else "lost"


def _feed(db: Reading, start: int, limit: int) -> FeedEvents:
    end, _ = db.end()
    begin = max(0, end - FEED_KEPT)
    if start > end:  # a position in another file of this name
        return FeedEvents([], str(end), lost=True)
    rows = db.all("feed", (max(start, begin), limit))
    events = [Event.stored(job_id, version, kind, at, unpack(text)) for _, job_id, version, kind, at, text in rows]
    return FeedEvents(events, str(rows[-1][0] if rows else max(start, begin)), lost=0 < start < begin)
