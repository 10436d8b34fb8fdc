"""Writes inside a transaction of the caller, who commits or rolls back: on psycopg, SQLAlchemy or Django."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg import errors as pg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from milepost.core.errors import InvalidInputError, StoreUnavailableError
from milepost.stores.postgres.connection import Call, Rows, adapt, run_async_pipeline, run_pipeline
from milepost.stores.postgres.database import Database, Part, Transaction
from milepost.stores.postgres.errors import MISSING, REPEATABLE, meaning, over_what
from milepost.stores.postgres.namespace import Namespace

T = TypeVar("T")

_PENDING = "milepost.after_commit"
"""Where a Session of SQLAlchemy keeps the functions to be called after its commit."""

_ADVISORY_LOCK = re.compile(r"\[\d+,(\d+),(\d+),1\]")
"""A lock in the detail of a deadlock, with the two halves of its number; the words around it are in the server's language."""

CommitHook = Callable[[Callable[[], None]], None]
_SUPPORTED = (
    "a connection of psycopg 3, a Session or Connection of SQLAlchemy with the driver psycopg, or Django's connection"
)


class CallerConnection:
    """The connection of a caller, with its open transaction, which stays open."""

    broken = False

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.given = connection

    async def run(self, *calls: Call) -> list[Rows]:
        return run_pipeline(self.given, calls, self._cursor)

    def _cursor(self) -> psycopg.Cursor[Any]:
        """Return a cursor that works as on a connection of the store."""
        cursor = self.given.cursor(row_factory=tuple_row)
        adapt(cursor)
        return cursor

    async def close(self) -> None:
        """Do nothing; the connection belongs to the caller."""


class AsyncCallerConnection:
    """The same for an async connection."""

    broken = False

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.given = connection

    async def run(self, *calls: Call) -> list[Rows]:
        return await run_async_pipeline(self.given, calls, self._cursor)

    def _cursor(self) -> psycopg.AsyncCursor[Any]:
        cursor = self.given.cursor(row_factory=tuple_row)
        adapt(cursor)
        return cursor

    async def close(self) -> None:
        """Do nothing; the connection belongs to the caller."""


AnyCallerConnection = CallerConnection | AsyncCallerConnection

_locked_keys: WeakKeyDictionary[object, tuple[str, set[str]]] = WeakKeyDictionary()
"""The unique keys that the last transaction of each connection has locked, with the time at which it began."""


class CallerTransaction(Transaction):
    """Runs statements in the transaction of a caller, and neither begins nor commits it.

    Its waits for a lock are bounded, and it can be undone: another transaction may hold an id or a unique key for long, and
    with `locks` the record of a run.
    """

    def __init__(self, connection: AnyCallerConnection, namespace: Namespace, *, locks: bool) -> None:
        super().__init__(connection, namespace)
        self._given = connection.given
        self._begun = True
        self._locks = locks
        self._is_bounded = False

    async def run(self, *parts: Part) -> list[Rows]:
        if self._is_bounded:
            return await super().run(*parts)
        self._is_bounded = True
        first: list[Part] = [("savepoint", None), ("caller_patience", {"patience": self.patience})]
        found = await super().run(*first, *parts)
        field = "unique_key" if self.keys else "after" if "members" in dict(parts) else "using"
        isolation, began, *_ = found[1][0]
        if self.keys:
            self._remember_keys(began)
        if (self._locks or field != "using") and isolation != "read committed":
            raise InvalidInputError(
                field, f"needs a transaction with the isolation READ COMMITTED, this one is {isolation.upper()}"
            )
        return found[len(first) :]

    async def commit(self, *parts: Part, after: Sequence[Part] = ()) -> list[Rows]:
        """Run statements. Those of `after` have to wait: later commits of this process look at their groups."""
        groups = {
            group for name, values in after if name == "closed_groups" and values is not None
            for group, xid in zip(values["groups"], values["xids"], strict=True) if xid is None
        }  # fmt: skip
        asked: list[Part] = [("transaction_id", None)] if groups else []
        found = await self.run(*parts, *asked, ("restore_patience", None), ("savepoint_release", None))
        self._is_bounded = False
        if groups:
            ((xid,),) = found[len(parts)]
            self._namespace.unsettled.setdefault(xid, set()).update(groups)
        return found[: len(parts)]

    async def run_alone(self, *parts: Part) -> list[Rows]:
        """Run statements; what fails does not abort the transaction of the caller."""
        return await self.commit(*parts)

    async def undo(self) -> None:
        if self._is_bounded:
            self._is_bounded = False
            await super().run(("savepoint_undo", None), ("savepoint_release", None))

    def _remember_keys(self, began: str) -> None:
        known = _locked_keys.get(self._given)
        if known is None or known[0] != began:
            known = _locked_keys[self._given] = (began, set())
        known[1].update(self.keys)

    async def keys_of(self, conflict: psycopg.Error) -> list[str]:
        """Return the unique keys that a deadlock or a long wait was over, as far as they are of this transaction."""
        _, known = _locked_keys.get(self._given, ("", ()))
        keys = [*known, *self.keys]
        if not keys:
            return []
        asked: Part = ("keys_of_others", {"keys": keys})
        if isinstance(conflict, pg.DeadlockDetected):
            found = _ADVISORY_LOCK.findall(conflict.diag.message_detail or "")
            locks = [struct.unpack("!q", struct.pack("!II", int(high), int(low)))[0] for high, low in found]
            asked = ("keys_of_locks", {"keys": keys, "locks": locks})
        (rows,) = await super().run(asked)
        return [key for (key,) in rows]


class CallerDatabase(Database):
    """Runs each piece of work once, in the transaction of a caller. Nothing is retried: that transaction is the unit."""

    def __init__(
        self, namespace: Namespace, connection: AnyCallerConnection, hook: CommitHook | None, *, locks: bool = False
    ) -> None:
        self.namespace = namespace
        self._connection = connection
        self._hook = hook
        self._locks = locks

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call a function after the commit, if there is a hook for that; polls find what was written in any case."""
        if self._hook is not None:
            self._hook(call)

    async def transact(self, work: Callable[[Transaction], Awaitable[T]], *, repeatable: bool = True) -> T:
        transaction = CallerTransaction(self._connection, self.namespace, locks=self._locks)
        try:
            return await self._undone(transaction, work)
        except pg.LockNotAvailable as error:
            words = await _over(transaction, error)
            raise meaning(error, self.namespace.where, self.namespace.patience, words) or error from error
        except pg.DeadlockDetected as error:
            raise StoreUnavailableError(
                f"{self.namespace.where}: deadlock with another transaction{await _over(transaction, error)}; roll yours back "
                "and repeat it, and lock rows and submit unique keys in the same order everywhere"
            ) from error
        except REPEATABLE as error:
            raise StoreUnavailableError(
                f"{self.namespace.where}: another transaction was first; roll yours back and repeat it"
            ) from error
        except pg.InFailedSqlTransaction as error:
            raise _failed() from error
        except MISSING as error:
            raise InvalidInputError(
                "using", f"the connection is to a database without the schema {self.namespace.schema!r}; use one to that of "
                f"the store, {self.namespace.where}",
            ) from error  # fmt: skip
        except psycopg.Error as error:
            raise meaning(error, self.namespace.where, self.namespace.patience) or error from error

    async def _undone(self, transaction: CallerTransaction, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Do the work, or none of it, so that the caller can continue after a wait for a lock has failed."""
        try:
            return await work(transaction)
        except Exception:
            with suppress(psycopg.Error):  # the connection is lost; what is raised says so
                await transaction.undo()
            raise


async def _over(transaction: CallerTransaction, conflict: psycopg.Error) -> str:
    """Return the words that name the unique keys or the job ID that a deadlock or a long wait was over, if any."""
    if (job_id := transaction.id_of(conflict)) is not None:
        return over_what(job_id, [])
    keys: list[str] = []
    with suppress(psycopg.Error):  # the connection is lost as well
        keys = await transaction.keys_of(conflict)
    return over_what(None, keys)


def commit_hook(given: object) -> CommitHook | None:
    """Return what calls a function after the commit of a Session of SQLAlchemy, or of Django's connection."""
    found: Any = getattr(given, "sync_session", given)
    if callable(getattr(found, "on_commit", None)):  # Django
        return lambda call: found.on_commit(call) if found.in_atomic_block else None
    orm = sys.modules.get("sqlalchemy.orm")
    if orm is None:
        return None
    if isinstance(found, orm.scoped_session):
        found = found()
    return partial(_after_commit_of, found) if isinstance(found, orm.Session) else None


def _after_commit_of(session: Any, call: Callable[[], None]) -> None:
    """Call a function after the next commit of a Session, unless it is rolled back first."""
    if _PENDING not in session.info:
        listen = sys.modules["sqlalchemy"].event.listen
        listen(session, "after_commit", _on_commit)
        listen(session, "after_rollback", _on_rollback)
    session.info.setdefault(_PENDING, []).append(call)


def _on_commit(session: Any) -> None:
    if not session.in_nested_transaction():  # else a savepoint has ended
        pending, session.info[_PENDING] = session.info[_PENDING], []
        for call in pending:
            call()


def _on_rollback(session: Any) -> None:
    if not session.in_nested_transaction():
        session.info[_PENDING] = []


def connection_of(given: object) -> CallerConnection:
    """Return the psycopg connection of a connection, of a Session or Connection of SQLAlchemy, or of Django's connection.

    Raises InvalidInputError for anything else, and for a connection without an open transaction in autocommit mode.
    """
    found: Any = given
    if callable(getattr(found, "ensure_connection", None)):  # Django
        found.ensure_connection()
        found = found.connection
    elif _is_async(found):
        raise InvalidInputError(
            "using", f"{type(given).__name__} is asynchronous; use AsyncJobs, or await in an AsyncRun"
        )
    elif not isinstance(found, psycopg.Connection):
        if callable(getattr(found, "connection", None)):  # a Session of SQLAlchemy
            found = found.connection()
        found = getattr(getattr(found, "connection", None), "driver_connection", None)
    if not isinstance(found, psycopg.Connection):
        raise InvalidInputError("using", f"{type(given).__name__} is not {_SUPPORTED}")
    _check(found)
    return CallerConnection(found)


async def async_connection_of(given: object) -> AsyncCallerConnection:
    """Return the psycopg connection of an async connection, or of an AsyncSession or AsyncConnection of SQLAlchemy.

    Raises as `connection_of`.
    """
    found: Any = given
    if hasattr(found, "sync_session"):
        found = await found.connection()
    if hasattr(found, "get_raw_connection"):
        found = (await found.get_raw_connection()).driver_connection
    if not isinstance(found, psycopg.AsyncConnection):
        raise InvalidInputError(
            "using",
            f"{type(given).__name__} is not an AsyncConnection of psycopg 3, and not an AsyncSession or AsyncConnection of "
            "SQLAlchemy with the driver psycopg",
        )
    _check(found)
    return AsyncCallerConnection(found)


def _is_async(given: object) -> bool:
    return (
        isinstance(given, psycopg.AsyncConnection)
        or hasattr(given, "sync_session")
        or hasattr(given, "get_raw_connection")
    )


def _check(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    status = connection.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise _failed()
    if status == TransactionStatus.IDLE and connection.autocommit:
        raise InvalidInputError(
            "using", "the connection is in autocommit mode and has no open transaction; open one, "
            "e.g. `with connection.transaction():`",
        )  # fmt: skip


def _failed() -> InvalidInputError:
    return InvalidInputError("using", "the transaction of the connection has failed; roll it back first")
