"""Writes inside a transaction of the caller, who commits or rolls back: on psycopg, SQLAlchemy or Django."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from milepost.core.errors import InvalidInputError, StoreUnavailableError
from milepost.stores.postgres.connection import Call, Rows, collected
from milepost.stores.postgres.database import Database, Part, Transaction
from milepost.stores.postgres.errors import REPEATABLE, meaning
from milepost.stores.postgres.namespace import Namespace

T = TypeVar("T")


class CallerConnection:
    """The connection of a caller, with its open transaction, which stays open."""

    broken = False

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    async def run(self, *calls: Call) -> list[Rows]:
        errors: list[psycopg.Error] = []
        with collected(errors), self._connection.pipeline(), collected(errors):
            cursors = [self._connection.cursor(row_factory=tuple_row).execute(*call) for call in calls]
        if errors:
            raise errors[0]
        return [cursor.fetchall() if cursor.description is not None else [] for cursor in cursors]

    async def close(self) -> None:
        """Do nothing; the connection belongs to the caller."""


class CallerTransaction(Transaction):
    """Runs statements in the transaction of a caller, and neither begins nor commits it.

    Its waits for a lock are bounded only while a unique key is taken, the one lock for which a submit may wait.
    """

    def __init__(self, connection: CallerConnection, namespace: Namespace) -> None:
        super().__init__(connection, namespace)
        self._begun = True
        self._restore: list[Part] = []

    async def run(self, *parts: Part) -> list[Rows]:
        keys = next((values["keys"] for name, values in parts if name == "lock_keys" and values is not None), None)
        if not keys:
            return await super().run(*parts)
        (((isolation, timeout),),) = await super().run(("caller_settings", None))
        if isolation != "read committed":
            raise InvalidInputError(
                "unique_key", f"needs a transaction with the isolation READ COMMITTED, this one is {isolation.upper()}"
            )
        self._restore = [("restore_patience", {"lock_timeout": timeout})]
        return (await super().run(("patience", {"patience": self.patience}), *parts))[1:]

    async def commit(self, *parts: Part, after: Sequence[Part] = ()) -> list[Rows]:
        """Run statements. Those of `after` have to wait: later commits of this process look at their groups."""
        groups = {
            group for name, values in after if name == "closed_groups" and values is not None
            for group, xid in zip(values["groups"], values["xids"], strict=True) if xid is None
        }  # fmt: skip
        asked: list[Part] = [("transaction_id", None)] if groups else []
        found = await super().run(*parts, *self._restore, *asked)
        if groups:
            ((xid,),) = found[-1]
            self._namespace.unsettled.setdefault(xid, set()).update(groups)
        return found[: len(parts)]


class CallerDatabase(Database):
    """Runs each piece of work once, in the transaction of a caller. Nothing is retried: that transaction is the unit."""

    def __init__(self, namespace: Namespace, connection: psycopg.Connection[Any]) -> None:
        self.namespace = namespace
        self._connection = CallerConnection(connection)

    async def transact(self, work: Callable[[Transaction], Awaitable[T]], *, repeatable: bool = True) -> T:
        try:
            return await work(CallerTransaction(self._connection, self.namespace))
        except REPEATABLE as error:
            raise StoreUnavailableError(
                f"{self.namespace.where}: another transaction was first; roll yours back and repeat it"
            ) from error
        except psycopg.Error as error:
            raise meaning(error, self.namespace.where, self.namespace.patience) or error from error


def connection_of(given: object) -> psycopg.Connection[Any]:
    """Return the psycopg connection of a connection, of a Session or Connection of SQLAlchemy, or of Django's connection.

    Raises InvalidInputError for anything else, and for a connection without an open transaction in autocommit mode.
    """
    found: Any = given
    if callable(getattr(found, "ensure_connection", None)):  # Django
        found.ensure_connection()
        found = found.connection
    elif not isinstance(found, psycopg.Connection):
        if callable(getattr(found, "connection", None)):  # a Session of SQLAlchemy
            found = found.connection()
        found = getattr(getattr(found, "connection", None), "driver_connection", None)
    if not isinstance(found, psycopg.Connection):
        raise InvalidInputError(
            "connection",
            f"{type(given).__name__} is no connection of psycopg 3, no Session or Connection of SQLAlchemy with the driver "
            "psycopg, and not Django's connection",
        )
    status = found.info.transaction_status
    if status == TransactionStatus.INERROR:
        raise InvalidInputError("connection", "its transaction has failed; roll it back first")
    if status == TransactionStatus.IDLE and found.autocommit:
        raise InvalidInputError(
            "connection",
            "is in autocommit mode and has no open transaction; open one, e.g. `with connection.transaction():`",
        )
    return found
