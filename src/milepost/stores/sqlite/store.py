"""The SQLite store: each method of `protocol.Store` is one transaction."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Literal, TypeVar

from milepost.core.defaults import FEED_KEPT, HEARTBEAT
from milepost.core.errors import InvalidInputError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.ledger import Book
from milepost.core.limits import KEEP, Keep, Limit, Rate, by_key, earliest, with_keys
from milepost.core.record_codec import unpack
from milepost.core.rollups import Rollups
from milepost.stores.held_jobs import release_held
from milepost.stores.protocol import (
    INVALID_VALUE_ERRORS,
    ApplyResult,
    Claim,
    FeedEvents,
    HealthReport,
    KeyValue,
    Position,
    PurgeResult,
    Select,
    SweepResult,
    Write,
    WriteResult,
)
from milepost.stores.retention import purge_in_batches
from milepost.stores.sqlite import limits, maintenance, queries
from milepost.stores.sqlite.database import Database
from milepost.stores.sqlite.database_file import DatabaseFile, path_of, system_micros
from milepost.stores.sqlite.maintenance import check_health
from milepost.stores.sqlite.transaction import ReadTransaction, WriteTransaction
from milepost.stores.store_values import validate_entry
from milepost.stores.sweep import Sweep
from milepost.stores.sync_bridge import other_form

T = TypeVar("T")

TRIMMING_SECONDS = 0.05
"""How long one sweep or purge continues to trim the feed, in transactions of a few milliseconds."""


class SQLiteStore:
    """Jobs in one file on this machine.

    `path` may be a ``sqlite:///`` URL. `synchronous` is FULL (acknowledged writes survive power loss) or NORMAL (they
    survive the process). `patience` is how many seconds to wait for the lock of another process. `clock` returns
    microseconds since 1970. The file is opened at the first use. Methods raise StoreUnavailableError, StoreFullError,
    OutcomeUnknownError and LayoutMismatchError.
    """

    shared = True
    report_interval = HEARTBEAT

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
            raise InvalidInputError("path", f"{text!r} names no file; use a path such as jobs.db, or memory://")
        if synchronous.upper() not in ("FULL", "NORMAL"):
            raise InvalidInputError("synchronous", f"{synchronous!r:.40} must be FULL or NORMAL")
        if not namespace or "\0" in namespace:
            raise InvalidInputError("namespace", "must be non-empty text without NUL")
        if namespace.lower().startswith("sqlite_"):
            raise InvalidInputError(
                "namespace", f"{namespace!r:.80} starts with sqlite_, which SQLite reserves; use another name"
            )
        self.blocking = blocking
        self._file = DatabaseFile(os.path.realpath(text), namespace, synchronous.upper(), patience, clock)
        self.url = f"sqlite:///{self._file.path}#{namespace}"
        self._database = Database(self._file, blocking=blocking)
        self._served: dict[str, Mapping[str, int | None]] = {}

    def with_blocking(self, *, blocking: bool) -> SQLiteStore:
        """Return a blocking or an async store on the same jobs, the same object at each call."""
        if blocking == self.blocking:
            return self
        file = self._file

        def make() -> SQLiteStore:
            return SQLiteStore(
                file.path, blocking=blocking, namespace=file.namespace, synchronous=file.synchronous,
                patience=file.patience, clock=file.clock,
            )  # fmt: skip

        return other_form(self, make)

    # --- writing ---

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        if claim is not None:
            self._served[claim.worker] = claim.queues
        if not writes and claim is None:
            return ApplyResult([], [], None)
        bad: list[Exception] = []
        applied = await self._database.write(lambda tx: _apply(tx, writes, claim, bad))
        if closed := [group for one in applied.outcomes for group in one.closed]:
            await release_held(self, closed)
        if bad:
            raise bad[0]
        return applied

    async def _apply_held(self, writes: Sequence[Write]) -> list[WriteResult]:
        return await self._database.write(lambda tx: [tx.write(write) for write in writes])

    async def held_by(self, group: str, limit: int) -> list[str]:
        return [job_id for (job_id,) in await self._database.read(lambda db: db.all("held_by", (group, limit)))]

    async def open_members(self, group: str, limit: int) -> list[str]:
        return [job_id for (job_id,) in await self._database.read(lambda db: db.all("open_members", (group, limit)))]

    async def member_counts(self, groups: Sequence[str]) -> list[dict[str, int]]:
        return await self._database.read(lambda db: [dict(db.all("member_counts", (group,))) for group in groups])

    async def heartbeat(
        self, writes: Sequence[Write], leases: Sequence[tuple[str, str]], micros: int | None
    ) -> tuple[list[WriteResult], list[str]]:
        if not writes:
            return [], await self.renew(leases, micros)
        bad: list[Exception] = []
        answer = await self._database.write(
            lambda tx: (_apply(tx, writes, None, bad).outcomes, _renew(tx, leases, micros))
        )
        if closed := [group for one in answer[0] for group in one.closed]:
            await release_held(self, closed)
        if bad:
            raise bad[0]
        return answer

    async def renew(self, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
        if not leases:
            return []
        if micros is None:
            return await self._database.read(lambda db: [_lease_state(db, lease) for lease in leases])
        return await self._database.write(lambda tx: _renew(tx, leases, micros))

    # --- reading ---

    async def get(self, job_id: str) -> Job | None:
        def work(db: ReadTransaction) -> Job | None:
            row = db.row(job_id)
            return db.whole(row) if row is not None else None

        return await self._database.read(work)

    async def select(self, select: Select, limit: int, after: Position | None = None) -> list[Job]:
        return await self._database.read(lambda db: queries.select(db, select, limit, after))

    async def oldest(self, status: str, limit: int) -> list[Job]:
        return await self._database.read(lambda db: queries.oldest(db, status, limit))

    async def count(self, select: Select) -> int | None:
        return await self._database.read(lambda db: queries.count(db, select))

    async def counts(self) -> dict[tuple[str, str], int]:
        return await self._database.read(lambda db: queries.pairs_of(db, Select()))

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        values = {"id": job_id, "after": after, "limit": limit}
        rows = await self._database.read(lambda db: db.all("events", values))
        return [Event.stored(job_id, version, kind, at, unpack(text)) for version, kind, at, text in rows]

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        if position is None:
            end, _ = await self._database.read(lambda db: db.end())
            return FeedEvents([], str(end))

        async def look() -> tuple[FeedEvents, float | None]:
            found = await self._database.read(lambda db: _feed(db, int(position), limit))
            return found, None if found.events or found.lost else inf

        return await self._database.watch.wait(look, timeout, feed=True, blocking=self.blocking)

    # --- waiting ---

    async def wait_for_work(self, worker: str, queues: Sequence[str], timeout: float) -> bool | Literal["worker"]:
        served = self._served.get(worker, {})
        wanted = {queue: served.get(queue) for queue in queues}

        async def look() -> tuple[bool | Literal["worker"], float | None]:
            woken, due = await self._database.read(lambda db: queries.claimable(db, worker, wanted))
            if woken:
                return "worker" if await self._take_wake(worker) else True, None
            return False, inf if due is None else max((due - self._file.read_clock()) / 1_000_000 + 0.0005, 0.0)

        return await self._database.watch.wait(look, timeout, feed=False, blocking=self.blocking)

    async def _take_wake(self, worker: str) -> bool:
        """Delete the wake-up of a worker; return whether there was one."""
        if await self._database.read(lambda db: db.one("wake_check", (worker,))) is None:
            return False
        await self._database.write(lambda tx: tx.run("wake_take", (worker,)))
        return True

    async def wake(self, worker: str) -> None:
        await self._database.write(lambda tx: tx.wake(worker))

    # --- maintenance ---

    async def sweep(
        self, *, lease: float, interval: float, limit: int = 200, task_queue: str | None = None, unreached: float = 0.0
    ) -> SweepResult:
        wanted = Sweep.of_seconds(lease, interval, limit, task_queue, unreached)
        if await self._database.read(lambda db: maintenance.too_soon(db, wanted)):
            return SweepResult([], skipped=True)
        found = await self._database.write(lambda tx: maintenance.sweep(tx, wanted))
        if not found.skipped:
            await release_held(self, found.closing)
            await self._trim()
        return found

    async def purge(self, *, before: int, limit: int = 500) -> PurgeResult:
        found = await purge_in_batches(
            lambda size: self._database.write(lambda tx: maintenance.purge(tx, before, size)), limit
        )
        await self._database.write(maintenance.forget)
        await self._trim()
        return found

    async def _trim(self) -> None:
        until = time.monotonic() + TRIMMING_SECONDS
        if await self._database.read(maintenance.overlong):
            while await self._database.write(maintenance.trim) and time.monotonic() < until:
                pass

    async def rollups(self, since: int, *, hourly: bool = False) -> Rollups:
        return await self._database.read(lambda db: maintenance.read_rollups(db, since, hourly=hourly))

    async def usage(self, books: Sequence[str]) -> list[Book]:
        def read(db: ReadTransaction) -> list[Book]:
            return [{(series, name): n for series, name, n in db.all("usage_get", (book,))} for book in books]

        return await self._database.read(read)

    # --- limits ---

    async def limits(self) -> dict[str, Limit]:
        return await self._database.read(limits.read_limits)

    async def set_limit(
        self,
        key: str,
        running: int | Keep | None,
        paused: bool | Keep,
        per_partition: int | Keep | None = None,
        rate: Rate | Keep | None = KEEP,
    ) -> None:
        def work(tx: WriteTransaction) -> None:
            limit = limits.read_limits(tx).get(key, Limit())
            limits.put_limit(tx, key, limit.changed(running, paused, per_partition, rate))

        await self._database.write(work)

    async def close_gate(self, key: str, micros: int) -> None:
        await self._database.write(lambda tx: limits.close_gate(tx, key, tx.now + micros if micros else 0))

    async def held_slots(self) -> dict[str, int]:
        return with_keys(await self._database.read(lambda db: db.all("held_slots")))

    async def claimable_jobs(self) -> dict[str, int]:
        return by_key(await self._database.read(lambda db: db.all("claimable_jobs")))

    async def draining_leases(self) -> list[tuple[str, str, int]]:
        rows = await self._database.read(lambda db: db.all("draining_all"))
        return [(job_id, token, expires) for job_id, token, expires in rows]

    # --- key-value ---

    async def kv_get(self, key: str) -> KeyValue | None:
        return await self._database.read(lambda db: maintenance.get(db, key))

    async def kv_put(self, key: str, value: str, *, version: int | None = None, ttl: float | None = None) -> int | None:
        validate_entry(key, value)
        return await self._database.write(lambda tx: maintenance.put(tx, key, value, version, ttl))

    async def kv_delete(self, key: str) -> bool:
        return await self._database.write(lambda tx: maintenance.delete(tx, key))

    async def kv_scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[KeyValue]:
        return await self._database.read(lambda db: maintenance.scan(db, prefix, after, limit))

    # --- health ---

    async def check_health(self) -> HealthReport:
        return await self._database.read(check_health)

    async def now(self) -> int:
        return await self._database.read(lambda db: db.file.read_clock(db.end()[1]))

    async def close(self) -> None:
        await self._database.close()


def _apply(tx: WriteTransaction, writes: Sequence[Write], claim: Claim | None, bad: list[Exception]) -> ApplyResult:
    """Apply writes independently: the error of an invalid one goes into `bad`, and the others are kept."""
    outcomes = []
    for write in writes:
        try:
            outcomes.append(tx.write(write))
        except INVALID_VALUE_ERRORS as error:
            bad.append(error)
    if claim is None or bad:
        return ApplyResult(outcomes, [], None)
    jobs, reopens = queries.claim(tx, claim)
    return ApplyResult(outcomes, jobs, earliest(queries.next_due(tx, claim.queues), reopens), tx.now)


def _renew(tx: WriteTransaction, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
    if micros is None:
        return [_lease_state(tx, lease) for lease in leases]
    until = tx.now + micros
    return [_renewed(tx, lease, until) for lease in leases]


def _renewed(tx: WriteTransaction, lease: tuple[str, str], until: int) -> str:
    if tx.run("lease_renew", (until, *lease)):
        return "live"
    return "stopping" if tx.run("draining_renew", (until, *lease)) else "lost"


def _lease_state(db: ReadTransaction, lease: tuple[str, str]) -> str:
    if db.one("lease_check", lease) is not None:
        return "live"
    return "stopping" if db.one("draining_check", lease) is not None else "lost"


def _feed(db: ReadTransaction, start: int, limit: int) -> FeedEvents:
    end, _ = db.end()
    begin = max(0, end - FEED_KEPT, db.number("trimmed") or 0)
    if start > end:  # the position is from an earlier file with this name
        return FeedEvents([], str(end), lost=True)
    rows = db.all("feed", (max(start, begin), limit))
    events = [Event.stored(job_id, version, kind, at, unpack(text)) for _, job_id, version, kind, at, text in rows]
    return FeedEvents(events, str(rows[-1][0] if rows else max(start, begin)), lost=0 < start < begin)
