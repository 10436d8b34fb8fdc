"""The meaning of PostgreSQL's errors: what can be retried, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import errors as pg

from milepost.core.errors import (
    LayoutMismatchError,
    LeaseHeldError,
    MilepostError,
    StoreFullError,
    StoreUnavailableError,
)
from milepost.stores.store_values import LAYOUT

REPEATABLE = (pg.DeadlockDetected, pg.SerializationFailure, pg.UniqueViolation)
"""Two transactions met, and this one was rolled back: it can be repeated at once."""

UNPREPARED = (pg.InvalidSqlStatementName, pg.DuplicatePreparedStatement)
"""A pooler gave a transaction a connection to the server that has other prepared statements."""

_TRANSIENT_TEXTS = ("starting up", "shutting down", "recovery", "too many", "reserved", "terminating")
_NO_CONNECTIONS = ("too many connections", "too many clients", "connection slots are reserved")
"""What the server says to a new connection, whose errors have no code."""
MISSING = (pg.UndefinedTable, pg.InvalidSchemaName, pg.UndefinedFunction)
"""The schema, or a part of it, does not exist."""


def is_permanent(error: psycopg.Error) -> bool:
    """Return whether a failed connection is permanent: a wrong password, user or database, not a server that is starting."""
    text = str(error)
    return "FATAL" in text and not any(words in text for words in _TRANSIENT_TEXTS)


def one_line(error: BaseException) -> str:
    """Return the text of an error as one line."""
    return " ".join(str(error).split())


def over_what(job_id: str | None, keys: Sequence[str]) -> str:
    """Return the words that name the job ID or the unique keys that a deadlock or a long wait was over, if known."""
    if job_id is not None:
        return f" over the job ID {job_id!r}"
    return f" over the unique key{'s' * (len(keys) > 1)} {' and '.join(map(repr, keys))}" if keys else ""


def meaning(error: psycopg.Error, where: str, patience: float, over: str = "") -> MilepostError | None:
    """Return the exception for an error of the server, or None if it is an error of this program.

    `where` is the URL for display. `patience` is how many seconds a lock was waited for, and `over` says what that is for.
    """
    text = one_line(error)
    if isinstance(error, pg.LockNotAvailable):
        over = over or (
            ", probably by a run that is committing its result, or by a submit of the same unique key or job ID"
        )
        return LeaseHeldError(
            f"locked by another transaction for more than {patience:g} s{over}; nothing was written, try again"
        )
    if isinstance(error, (pg.DiskFull, pg.OutOfMemory)):
        return StoreFullError(f"{where}: {text}; free space on the server")
    if isinstance(error, pg.InsufficientPrivilege):
        return StoreUnavailableError(
            f"{where}: {text}; grant the role these rights, or connect as another role", temporary=False
        )
    if isinstance(error, (pg.ReadOnlySqlTransaction, pg.QueryCanceled, pg.IdleInTransactionSessionTimeout)):
        return StoreUnavailableError(f"{where}: {text}")
    if isinstance(error, pg.TooManyConnections) or any(words in text for words in _NO_CONNECTIONS):
        return StoreUnavailableError(
            f"{where}: {text}; raise max_connections or the limit of the role, or connect through PgBouncer"
        )
    if isinstance(error, UNPREPARED):
        return StoreUnavailableError(
            f"{where}: {text}; set max_prepared_statements of PgBouncer above 0, or connect with prepare_threshold=None",
            temporary=False,
        )
    if isinstance(error, pg.UndefinedColumn):
        return LayoutMismatchError(where, str(LAYOUT), LAYOUT, lacks=text)
    if isinstance(error, MISSING):
        return StoreUnavailableError(
            f"{where}: {text}; create what is missing with the output of `milepost migrate --sql`", temporary=False
        )
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return StoreUnavailableError(f"{where}: {text}")
    return None
