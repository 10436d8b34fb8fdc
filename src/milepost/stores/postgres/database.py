"""Run statements and transactions on pooled connections, with retries while the server cannot be reached."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg

from milepost.core.defaults import RETRY_BUDGET
from milepost.core.errors import MilepostError, OutcomeUnknownError, StoreUnavailableError
from milepost.stores.postgres.connection import Call, Connection, Pool, Rows
from milepost.stores.postgres.errors import REPEATABLE, UNPREPARED, is_permanent, meaning, one_line, over_what
from milepost.stores.postgres.namespace import Namespace

T = TypeVar("T")
Part = tuple[str, Mapping[str, Any] | None]
"""The name of a statement and its values."""

REPEATS = 20
"""How often a transaction that met another one is repeated."""
_RECONNECT = (pg.AdminShutdown, pg.CrashShutdown, pg.CannotConnectNow, pg.ReadOnlySqlTransaction, pg.TooManyConnections)
"""Errors after which a new connection may succeed, for example to the server that has taken over."""


def for_rows(name: str, fields: str, rows: Sequence[tuple[Any, ...]]) -> list[Part]:
    """Return the statement that takes rows as one list for each of their fields; none if there are no rows."""
    return [(name, dict(zip(fields.split(), map(list, zip(*rows, strict=True)), strict=True)))] if rows else []


class Transaction:
    """A transaction on one connection. Each call is one round trip.

    `keys` are the unique keys that it has locked or waits for, `ids` those of the jobs that it creates.
    """

    def __init__(self, connection: Connection, namespace: Namespace) -> None:
        self._connection = connection
        self._namespace = namespace
        self._begun = False
        self.is_open = self.committing = False
        self.keys: list[str] = []
        self.ids: list[str] = []

    async def run(self, *parts: Part) -> list[Rows]:
        """Run statements; the first call begins the transaction."""
        begin = self._begin()
        return (await self._connection.run(*begin, *self._calls(parts)))[len(begin) :]

    async def commit(self, *parts: Part, after: Sequence[Part] = ()) -> list[Rows]:
        """Run statements, commit, and run those of `after`. Return the rows of all."""
        self.committing = True
        begin = self._begin()
        found = await self._connection.run(*begin, *self._calls(parts), ("COMMIT", None), *self._calls(after))
        self.is_open = False
        first = len(begin)
        return found[first : first + len(parts)] + found[first + len(parts) + 1 :]

    async def run_alone(self, *parts: Part) -> list[Rows]:
        """Run statements that are a transaction of their own."""
        return await self._connection.run(*self._calls(parts))

    def id_of(self, conflict: psycopg.Error) -> str | None:
        """Return the id of the job that this transaction was creating when it met another one with that id."""
        is_over_id = '"jobs_pkey"' in (conflict.diag.context or "")
        return self.ids[0] if is_over_id and len(self.ids) == 1 else None

    def _calls(self, parts: Sequence[Part]) -> list[Call]:
        for name, values in parts:
            if name == "lock_keys" and values is not None:
                self.keys = values["keys"]
            elif name == "jobs_insert" and values is not None:
                self.ids = values["id"]
        return [self._namespace.call(name, values) for name, values in parts]

    def _begin(self) -> list[Call]:
        if self._begun:
            return []
        self._begun = self.is_open = True
        return [(self._namespace.sql["begin"], None), self._namespace.call("patience", {"patience": self.patience})]

    @property
    def patience(self) -> str:
        """Return the longest wait for a lock, in milliseconds, as the server takes it."""
        return str(round(self._namespace.patience * 1000))

    @property
    def is_broken(self) -> bool:
        """Return whether the connection was lost."""
        return self._connection.broken

    async def end(self) -> None:
        """Roll back what is not committed."""
        if self.is_open:
            self.is_open = False
            await self._connection.run(("ROLLBACK", None))


class Database:
    """The connections of one store object. `connect_budget` is for how many seconds a request that was not sent is retried."""

    def __init__(self, namespace: Namespace, *, blocking: bool, connect_budget: float) -> None:
        self.namespace = namespace
        self._connect_budget = connect_budget
        self.pool = Pool(namespace.given, blocking=blocking)

    async def run(self, *parts: Part) -> list[Rows]:
        """Run statements that may be repeated, in one round trip, and commit."""
        return await self.transact(lambda tx: tx.run_alone(*parts))

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call a function when what was written is committed: now."""
        call()

    async def transact(self, work: Callable[[Transaction], Awaitable[T]], *, repeatable: bool = True) -> T:
        """Run `work`, which commits or is rolled back, and retry it.

        `repeatable`: a repetition has no second effect. Raises StoreUnavailableError, OutcomeUnknownError, StoreFullError,
        LeaseHeldError, LayoutMismatchError.
        """
        began, tries, sent = time.monotonic(), 0, False
        while True:
            tx: Transaction | None = None
            connected = False
            try:
                async with self.pool.turn():
                    connection = await self._connected()
                    connected, tx = True, Transaction(connection, self.namespace)
                    return await self._once(connection, tx, work)
            except (*REPEATABLE, *UNPREPARED) as error:
                if isinstance(error, UNPREPARED):
                    self.pool.prepares = False
                tries += 1
                if tries > REPEATS:
                    raise StoreUnavailableError(f"{self.namespace.where}: {one_line(error)}; try again") from error
                await self.pool.pause(random.uniform(0, 0.01) * tries)
            except psycopg.Error as error:
                lost = not connected or isinstance(error, _RECONNECT) or (tx is not None and tx.is_broken)
                if tx is not None and isinstance(error, pg.LockNotAvailable):
                    raise (
                        meaning(error, self.namespace.where, self.namespace.patience, await self._over(tx, error))
                        or error
                    ) from error
                if not lost or (not connected and is_permanent(error)):
                    raise self._raised(error, temporary=connected) from error
                if tx is not None and tx.committing:
                    sent = True
                    if not repeatable:
                        raise self._unknown(error) from error
                if time.monotonic() - began >= (RETRY_BUDGET if sent else self._connect_budget):
                    if sent:
                        raise self._unknown(error) from error
                    raise self._raised(error, temporary=True) from error
                await self.pool.pause(random.uniform(0.05, 0.3))

    async def _once(self, connection: Connection, tx: Transaction, work: Callable[[Transaction], Awaitable[T]]) -> T:
        try:
            answer = await work(tx)
            await tx.end()
        except Exception as error:
            if connection.broken or isinstance(error, (*_RECONNECT, *UNPREPARED)):
                await connection.close()
            else:
                await self._rolled_back(connection, tx)
            raise
        except BaseException:
            await connection.close()  # cancelled, or in a signal handler: what it was doing is not known
            raise
        self.pool.put_back(connection)
        return answer

    async def _rolled_back(self, connection: Connection, tx: Transaction) -> None:
        try:
            await tx.end()
        except psycopg.Error:
            await connection.close()
        else:
            self.pool.put_back(connection)

    async def _connected(self) -> Connection:
        connection = self.pool.idle()
        if connection is not None:
            return connection
        connection = await self.pool.connect()
        try:
            await self.namespace.open(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _over(self, tx: Transaction, conflict: psycopg.Error) -> str:
        """Return the words that name the unique keys or the job ID that a long wait was over, if it still is."""
        keys: list[str] = []
        if tx.keys:
            with suppress(psycopg.Error, MilepostError):  # the connection is lost as well
                (rows,) = await self.run(("keys_of_others", {"keys": tx.keys}))
                keys = [key for (key,) in rows]
        return over_what(tx.id_of(conflict), keys)

    def _unknown(self, error: psycopg.Error) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"{self.namespace.where}: connection lost while committing: {one_line(error)}; the change may have been made, "
            "read it before you repeat it"
        )

    def _raised(self, error: psycopg.Error, *, temporary: bool) -> MilepostError | psycopg.Error:
        if not temporary:
            return StoreUnavailableError(f"{self.namespace.where}: {one_line(error)}", temporary=False)
        return meaning(error, self.namespace.where, self.namespace.patience) or error
