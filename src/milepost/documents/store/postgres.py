"""PostgreSQL with pgvector as a document store, for several machines.

Writers take turns with an advisory lock, as in SQLite. The nearest chunks are found exactly, by the database.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from milepost.documents.errors import StoreBusyError
from milepost.documents.store.database import Row, Transaction
from milepost.documents.store.schema import schema, set_up

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
_WRITER: Final = 0x6D696C65_706F7374  # "milepost"
_LOCK_MILLISECONDS: Final = 5000
_TRANSIENT_ERRORS: Final = ("starting up", "shutting down", "recovery", "too many", "reserved", "terminating")
_NEAREST: Final = """
    SELECT 1 - (v.vector <=> ?) AS score, c.version_id, c.ordinal
    FROM documents d
    JOIN chunks c ON c.version_id = d.version_id
    JOIN vectors v ON v.vector_key = c.vector_key
    WHERE d.generation = ?
    ORDER BY score DESC, c.version_id, c.ordinal LIMIT ?
"""


class PostgresDatabase:
    """A document database at a ``postgresql://`` URL. Missing tables are created."""

    def __init__(self, url: str) -> None:
        try:
            import pgvector.psycopg  # noqa: F401 - asked for early, to say early what is missing
            import psycopg  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "the PostgreSQL packages are not installed; run: pip install 'milepost[postgres]'"
            ) from error
        self._url = url
        self._lock = threading.RLock()
        self._connection: Any = None
        self._pid = 0

    def __str__(self) -> str:
        """Return the URL without user and password."""
        return "postgresql://" + self._url.partition("://")[2].rpartition("@")[2].partition("?")[0]

    def transact(self, work: Callable[[Transaction], T], *, write: bool = True) -> T:
        """Run `work` in a transaction: readers on a snapshot, writers one at a time."""
        import psycopg

        with self._lock:
            try:
                connection = self._connected()
                with connection.transaction():
                    transaction = _PostgresTransaction(connection)
                    if write:
                        transaction.run(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}")
                        transaction.one("SELECT pg_advisory_xact_lock(?)", (_WRITER,))
                    else:
                        transaction.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    return work(transaction)
            except (
                psycopg.OperationalError,
                psycopg.InterfaceError,
                psycopg.errors.DeadlockDetected,
                psycopg.errors.SerializationFailure,
            ) as error:
                if self._connection is not None and self._connection.broken:
                    self.close()
                raise StoreBusyError(f"the document store {self} is busy: {_line(error)}") from error

    def to_vector(self, vector: NDArray[np.float32]) -> Any:
        """Return a vector for pgvector."""
        from pgvector import Vector

        return Vector(vector)

    def from_vectors(self, values: Sequence[Any], dimension: int) -> NDArray[np.float32]:
        """Return stored vectors as an array of shape (len(values), dimension)."""
        import numpy as np

        rows = [value.to_numpy() if hasattr(value, "to_numpy") else value for value in values]
        return np.asarray(rows, dtype=np.float32).reshape(len(values), dimension)

    def nearest(
        self, transaction: Transaction, generation: int, dimension: int, vector: NDArray[np.float32], k: int
    ) -> list[tuple[float, str, int]]:
        """Return (cosine, version id, ordinal) of the `k` nearest chunks, compared by the database."""
        rows = transaction.all(_NEAREST, (self.to_vector(vector), generation, k))
        return [(float(score), version_id, ordinal) for score, version_id, ordinal in rows]

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def _connected(self) -> Any:
        import psycopg
        from pgvector.psycopg import register_vector

        if self._connection is None or self._pid != os.getpid():
            try:
                connection = psycopg.connect(self._url, autocommit=True)
            except psycopg.OperationalError as error:
                if _is_permanent(str(error)):
                    raise ValueError(f"the document store {self} cannot be opened: {_line(error)}") from error
                raise
            try:
                with connection.transaction():
                    transaction = _PostgresTransaction(connection)
                    transaction.one("SELECT pg_advisory_xact_lock(?)", (_WRITER,))
                    transaction.run("CREATE EXTENSION IF NOT EXISTS vector")
                    set_up(transaction, schema(blob="BYTEA", vector="VECTOR"))
                register_vector(connection)
            except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
                connection.close()
                raise ValueError(
                    f"the server of {self} does not have pgvector; install it there (Debian: postgresql-17-pgvector)"
                ) from error
            except psycopg.errors.InsufficientPrivilege as error:
                connection.close()
                raise ValueError(f"the user of {self} may not create tables or extensions: {_line(error)}") from error
            except BaseException:
                connection.close()
                raise
            self._connection, self._pid = connection, os.getpid()
        return self._connection


class _PostgresTransaction:
    def __init__(self, connection: Any) -> None:
        self._cursor = connection.cursor()

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        rows: list[Row] = self._cursor.execute(_marked(sql), values).fetchall()
        return rows

    def one(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        row: Row | None = self._cursor.execute(_marked(sql), values).fetchone()
        return row

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        return int(self._cursor.execute(_marked(sql), values).rowcount)

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._cursor.executemany(_marked(sql), rows)


def _is_permanent(message: str) -> bool:
    """Return whether a connection error is permanent: a wrong password, user or database, not a server that is
    starting.
    """
    return "FATAL" in message and not any(word in message for word in _TRANSIENT_ERRORS)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _marked(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")
