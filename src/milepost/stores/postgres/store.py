"""The PostgreSQL store: each method of `protocol.Store` is one transaction of one or two round trips."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

from milepost.core.defaults import HEARTBEAT
from milepost.core.errors import LeaseHeldError, MissingExtraError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.ledger import Book
from milepost.core.limits import earliest, type_name
from milepost.core.record_codec import unpack
from milepost.core.rollups import Rollups
from milepost.stores.held_jobs import release_held
from milepost.stores.protocol import (
    NOT_WRITTEN,
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
from milepost.stores.store_values import validate_entry
from milepost.stores.sweep import Sweep
from milepost.stores.sync_bridge import copy_with, other_form, run_sync

try:
    from milepost.stores.postgres import maintenance, queries
    from milepost.stores.postgres.caller_transaction import (
        CallerDatabase,
        async_connection_of,
        commit_hook,
        connection_of,
    )
    from milepost.stores.postgres.database import Database, Part, Transaction
    from milepost.stores.postgres.feed import FeedPosition, read_feed
    from milepost.stores.postgres.limits import PostgresLimits
    from milepost.stores.postgres.namespace import Namespace
    from milepost.stores.postgres.writes import Writer, job_of
except ModuleNotFoundError as error:
    if error.name is None or error.name.partition(".")[0] != "psycopg":
        raise
    raise MissingExtraError("postgres", "the PostgreSQL store") from error

CONNECT_BUDGET = 5.0
POLL_INTERVAL = 0.5
"""Seconds after which a waiting caller looks for changes of which no notification came."""
PATIENCE = 2.0
"""Seconds to wait for a lock, which a transaction of a caller may hold for minutes."""
TRIMMING_SECONDS = 0.2
"""How long one sweep or purge continues to trim the feed."""


class PostgresStore(PostgresLimits):
    """Jobs in a schema of a PostgreSQL database, 15 or later. Safe for threads and across a fork.

    `url` is a connection URI of libpq. `namespace` is the schema, created at the first use. `patience` is how many seconds
    to wait for a lock, `connect_budget` how many seconds a request that could not be sent is retried. Methods raise
    StoreUnavailableError, StoreFullError, OutcomeUnknownError, LayoutMismatchError, and LeaseHeldError if a job is locked by
    another transaction for longer than `patience`.
    """

    shared = True
    report_interval = HEARTBEAT

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "milepost",
        blocking: bool = True,
        patience: float = PATIENCE,
        connect_budget: float = CONNECT_BUDGET,
    ) -> None:
        self.blocking = blocking
        self._namespace = Namespace(url, namespace, patience)
        self.url = self._namespace.url
        self._connect_budget = connect_budget
        self._db = Database(self._namespace, blocking=blocking, connect_budget=connect_budget)
        self._served: dict[str, Mapping[str, int | None]] = {}

    def with_blocking(self, *, blocking: bool) -> PostgresStore:
        """Return a blocking or an async store on the same jobs, the same object at each call."""
        if blocking == self.blocking:
            return self

        def make() -> PostgresStore:
            db = Database(self._namespace, blocking=blocking, connect_budget=self._connect_budget)
            return copy_with(self, blocking=blocking, _db=db, _other=self)

        return other_form(self, make)

    def within(self, connection: object, *, locks: bool = False) -> PostgresStore:
        """Return a blocking store that writes in the open transaction of a caller's connection, see `connection_of`.

        Use it only before that transaction ends. `locks`: it is to lock what others may have locked. Raises
        InvalidInputError.
        """
        if not self._namespace.is_open:
            # An error about the schema must not abort the transaction of the caller.
            run_sync(self.with_blocking(blocking=True).now())
        db = CallerDatabase(self._namespace, connection_of(connection), commit_hook(connection), locks=locks)
        return self._over(db, blocking=True)

    async def awithin(self, connection: object, *, locks: bool = False) -> PostgresStore:
        """Return an async store that does the same, see `async_connection_of`."""
        if not self._namespace.is_open:
            await self.with_blocking(blocking=False).now()
        found = await async_connection_of(connection)
        db = CallerDatabase(self._namespace, found, commit_hook(connection), locks=locks)
        return self._over(db, blocking=False)

    def _over(self, db: Database, *, blocking: bool) -> PostgresStore:
        other = object.__new__(PostgresStore)
        other.blocking, other.url, other._namespace, other._served = blocking, self.url, self._namespace, {}
        other._connect_budget, other._db = self._connect_budget, db
        return other

    def schema_sql(self) -> str:
        """Return the SQL that creates the schema. It changes nothing of a schema that exists."""
        return self._namespace.sql.with_comments("schema")

    # --- writing ---

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        if claim is not None:
            self._served[claim.worker] = claim.queues
        if not writes and claim is None:
            return ApplyResult([], [], None)
        applied, writer = await self._write(writes, claim)
        if writer.closed:
            await release_held(self, writer.closed)
        return applied

    async def _apply_held(self, writes: Sequence[Write]) -> list[WriteResult]:
        applied, writer = await self._write(writes, None)
        if applied.outcomes:
            applied.outcomes[-1] = applied.outcomes[-1]._replace(closed=writer.closed)
        return applied.outcomes

    async def held_by(self, group: str, limit: int) -> list[str]:
        return await queries.first_ids(self._db, "held_by", group, limit)

    async def open_members(self, group: str, limit: int) -> list[str]:
        return await queries.first_ids(self._db, "open_members_of", group, limit)

    async def member_counts(self, groups: Sequence[str]) -> list[dict[str, int]]:
        return await queries.member_counts(self._db, groups)

    async def _write(
        self, writes: Sequence[Write], claim: Claim | None, after: Part | None = None
    ) -> tuple[ApplyResult, Writer]:
        """Apply in one transaction, and run a statement after the commit. The writer knows its rows."""
        bad: list[Exception] = []
        writers: list[Writer] = []

        async def work(tx: Transaction) -> ApplyResult:
            bad.clear()
            writers.append(Writer(tx, self._namespace, after))
            return await writers[-1].apply(writes, claim, bad)

        applied = await self._db.transact(work)
        writer = writers[-1]
        has_events, wakes_workers = writer.has_events, writer.wakes_workers
        if has_events or wakes_workers:
            notify = self._namespace.notifications.notify
            self._db.after_commit(lambda: notify(has_events=has_events, wakes_workers=wakes_workers))
        if bad:
            await release_held(self, writer.closed)
            raise bad[0]
        return applied, writer

    async def heartbeat(
        self, writes: Sequence[Write], leases: Sequence[tuple[str, str]], micros: int | None
    ) -> tuple[list[WriteResult], list[str]]:
        if not writes or not leases:
            return (await self.apply(writes)).outcomes, await self.renew(leases, micros)
        # Renewals are a transaction of their own, so that no write of one job keeps them from the others.
        try:
            applied, writer = await self._write(writes, None, queries.renewal(leases, micros))
        except LeaseHeldError:
            states = await self.renew(leases, micros)
            return await self._apply_each(writes), states
        if writer.closed:
            await release_held(self, writer.closed)
        return applied.outcomes, [state for (state,) in writer.afterwards]

    async def _apply_each(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Apply the writes of each job by themselves; NOT_WRITTEN for those of a job that is locked."""
        outcomes: list[WriteResult] = []
        for _, own in groupby(writes, lambda write: write.job_id):
            some = list(own)
            try:
                outcomes += (await self.apply(some)).outcomes
            except LeaseHeldError:
                outcomes += [NOT_WRITTEN] * len(some)
        return outcomes

    async def renew(self, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
        if not leases:
            return []
        (rows,) = await self._db.run(queries.renewal(leases, micros))
        return [state for (state,) in rows]

    # --- transactions of callers ---

    async def put_checkpoint(self, job_id: str, token: str, value: str) -> str | None:
        """Store a checkpoint until the lease ends; return the transaction, or None if the token has no lease any more.

        In a transaction of a caller the lease is not taken by others until that has ended. Nothing else is locked.
        """
        values = {"id": job_id, "token": token, "value": value}

        async def work(tx: Transaction) -> str | None:
            (rows,) = await tx.commit(("checkpoint_put", values))
            return rows[0][0] if rows else None

        return await self._db.transact(work)

    async def transaction_id(self) -> str:
        """Return the number of the open transaction of a caller."""
        (((xid,),),) = await self._db.run(("transaction_id", None))
        return str(xid)

    async def transaction_status(self, transaction: str) -> str:
        """Return "in progress", "committed" or "aborted"."""
        (((status,),),) = await self._db.run(("transaction_status", {"transaction": transaction}))
        return str(status)

    # --- reading ---

    async def get(self, job_id: str) -> Job | None:
        (rows,) = await self._db.run(("get", {"id": job_id}))
        if not rows:
            return None
        large, *found = rows[0]
        job = job_of(tuple(found))
        return job if large is None else Job.stored(job_id, {**job.record, **large})

    async def select(self, select: Select, limit: int, after: Position | None = None) -> list[Job]:
        return await queries.select(self._db, select, limit, after)

    async def oldest(self, status: str, limit: int) -> list[Job]:
        return await queries.oldest(self._db, status, limit)

    async def count(self, select: Select) -> int | None:
        return await queries.count(self._db, select)

    async def counts(self) -> dict[tuple[str, str], int]:
        return await queries.counts(self._db)

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        (rows,) = await self._db.run(("events", {"id": job_id, "after": after, "limit": limit}))
        return [Event.stored(job_id, version, kind, at, unpack(text)) for version, kind, at, text in rows]

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        if position is None:
            (((snapshot,),),) = await self._db.run(("feed_end", None))
            return FeedEvents([], str(FeedPosition.of_snapshot(snapshot)))
        start = FeedPosition.read(position)

        async def look() -> tuple[FeedEvents, float | None]:
            nonlocal start
            found = await read_feed(self._db, start, limit)
            start = FeedPosition.read(found.position)
            return found, None if found.events or found.lost else POLL_INTERVAL

        self._namespace.notifications.listen()
        return await self._namespace.waiters.wait(look, timeout, feed=True, blocking=self.blocking)

    # --- waiting ---

    async def wait_for_work(self, worker: str, queues: Sequence[str], timeout: float) -> bool | Literal["worker"]:
        served = self._served.get(worker, {})
        values: dict[str, Any] = {
            "queues": list(queues), "slots": [type_name(queue) for queue in queues],
            "own": [served.get(queue) for queue in queues], "most": 1, "worker": worker,
        }  # fmt: skip

        async def look() -> tuple[bool | Literal["worker"], float | None]:
            _, ((due, woken, claimable, now, split),) = await self._db.run(("claim_plans", None), ("work", values))
            if woken:
                await self._db.run(("wake_take", {"worker": worker}))
                return "worker", None
            if split and not claimable:
                claimable, reopens = await queries.has_claimable_subqueue(self._db, split, served, now)
                due = earliest(due, reopens)
            if claimable or (due is not None and due <= now):
                return True, None
            return False, POLL_INTERVAL if due is None else min(POLL_INTERVAL, (due - now) / 1_000_000 + 0.0005)

        self._namespace.notifications.listen()
        return await self._namespace.waiters.wait(look, timeout, feed=False, blocking=self.blocking)

    async def wake(self, worker: str) -> None:
        await self._db.run(("wakes_put", {"workers": [worker], "at": await self.now()}))
        self._namespace.notifications.notify(has_events=False, wakes_workers=True)

    # --- maintenance ---

    async def sweep(
        self, *, lease: float, interval: float, limit: int = 200, task_queue: str | None = None, unreached: float = 0.0
    ) -> SweepResult:
        wanted = Sweep.of_seconds(lease, interval, limit, task_queue, unreached)
        rows, ((now,),) = await self._db.run(("state", None), ("now", None))
        state: dict[str, int | None] = dict(rows)
        if wanted.skips(self._namespace.saw(now), state["swept"]):
            return SweepResult([], skipped=True)
        found = await self._db.transact(lambda tx: maintenance.sweep(tx, self._namespace, wanted), repeatable=False)
        if not found.skipped:
            await release_held(self, found.closing)
            await self._trim(now, late=False)
        return found

    async def purge(self, *, before: int, limit: int = 500) -> PurgeResult:
        now = await self.now()
        found = await purge_in_batches(
            lambda size: self._db.transact(lambda tx: maintenance.purge(tx, before, now, size)), limit
        )
        await self._db.transact(lambda tx: maintenance.forget(tx, now))
        await self._trim(now, late=True)
        return found

    async def _trim(self, now: int, *, late: bool) -> None:
        until = time.monotonic() + TRIMMING_SECONDS
        while await self._db.transact(lambda tx: maintenance.trim(tx, now, late=late)) and time.monotonic() < until:
            pass

    async def rollups(self, since: int, *, hourly: bool = False) -> Rollups:
        return await maintenance.read_rollups(self._db, since, hourly=hourly)

    async def usage(self, books: Sequence[str]) -> list[Book]:
        return await maintenance.read_usage(self._db, books)

    async def draining_leases(self) -> list[tuple[str, str, int]]:
        (rows,) = await self._db.run(("draining_all", None))
        return [(job_id, token, expires) for job_id, token, expires in rows]

    # --- key-value ---

    async def kv_get(self, key: str) -> KeyValue | None:
        (rows,) = await self._db.run(("kv_get", {"key": key}))
        return KeyValue(*rows[0]) if rows else None

    async def kv_put(self, key: str, value: str, *, version: int | None = None, ttl: float | None = None) -> int | None:
        validate_entry(key, value)
        micros = None if ttl is None else int(ttl * 1_000_000)
        values = {"key": key, "value": value, "version": version, "ttl": micros}

        async def work(tx: Transaction) -> int | None:
            _, rows = await tx.commit(("kv_lock", values), ("kv_put", values))
            return rows[0][0] if rows else None

        return await self._db.transact(work, repeatable=version is None)

    async def kv_delete(self, key: str) -> bool:
        (rows,) = await self._db.run(("kv_delete", {"key": key}))
        return bool(rows and rows[0][0])

    async def kv_scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[KeyValue]:
        (rows,) = await self._db.run(("kv_scan", {"prefix": prefix, "after": after, "limit": limit}))
        return [KeyValue(*row) for row in rows]

    # --- health ---

    async def check_health(self) -> HealthReport:
        return await maintenance.check_health(self._db)

    async def now(self) -> int:
        (((now,),),) = await self._db.run(("now", None))
        return self._namespace.saw(now)

    async def close(self) -> None:
        self._namespace.notifications.close()
        await self._db.pool.close()
        if not self.blocking and "_other" in vars(self):
            await self.with_blocking(blocking=True)._db.pool.close()  # that of the heartbeat
