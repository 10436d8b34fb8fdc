"""PostgreSQL with pgvector as a document store, for several machines.

Writers take turns with an advisory lock, as in SQLite. The database finds the nearest chunks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from milepost.core.errors import InvalidInputError
from milepost.documents.errors import StoreBusyError
from milepost.documents.store.database import Entries, Row, Transaction
from milepost.documents.store.postgres_vectors import (
    MAX_APPROXIMATE_HITS,
    create_index,
    has_index,
    is_wanted,
    nearest_by_index,
)
from milepost.documents.store.postgres_words import matching_chunks
from milepost.documents.store.records import Generation
from milepost.documents.store.schema import schema, set_up
from milepost.documents.words import Term

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
_WRITER: Final = 0x6D696C65_706F7374  # "milepost"
_LOCK_MILLISECONDS: Final = 5000
_WORDS_MILLISECONDS: Final = 10_000
"""The time limit of a search by words, because other requests of the process wait for the connection."""
_TRANSIENT_ERRORS: Final = ("starting up", "shutting down", "recovery", "too many", "reserved", "terminating")
_COSINE: Final = """
    SELECT 1 - (v.vector <=> ?) AS score, e.number FROM index_entries e
    JOIN chunks c ON c.version_id = e.version_id AND c.ordinal = e.ordinal
    JOIN vectors v ON v.vector_key = c.vector_key
    WHERE e.generation = ?
"""
_WORDS: Final = """CREATE TABLE IF NOT EXISTS words (rowid BIGINT PRIMARY KEY, body TSVECTOR NOT NULL);
CREATE INDEX IF NOT EXISTS words_body ON words USING gin (body)"""


class PostgresDatabase:
    """A document database at a ``postgresql://`` URL. Missing tables are created."""

    approximate_from = 50_000

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
        with self._lock, self._busy_errors():
            connection = self._connected()
            with connection.transaction():
                transaction = _PostgresTransaction(connection)
                if write:
                    transaction.run(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}")
                    transaction.one("SELECT pg_advisory_xact_lock(?)", (_WRITER,))
                else:
                    transaction.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                return work(transaction)

    @contextmanager
    def _busy_errors(self) -> Iterator[None]:
        """Raise StoreBusyError for errors that may pass, and drop a broken connection."""
        import psycopg

        try:
            yield
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

    def to_words(self, words: Sequence[str]) -> str:
        """Return words with their places, as the type TSVECTOR reads them."""
        return " ".join(f"{word}:{place}" for place, word in enumerate(words, 1))

    def nearest(
        self, transaction: Transaction, among: Entries, dimension: int, vector: NDArray[np.float32], k: int
    ) -> list[tuple[float, int]]:
        """Return (cosine, entry number) of the `k` nearest entries, by the vector index if there is one.

        With a filter all entries that match it are compared.
        """
        if among.query is None and k <= MAX_APPROXIMATE_HITS and has_index(transaction, dimension):
            found = nearest_by_index(transaction, among.generation, dimension, self.to_vector(vector), k)
            if len(found) == k:
                return found
        condition, values = among.condition("e.number")
        rows = transaction.all(
            f"{_COSINE} {condition} ORDER BY score DESC, e.number LIMIT ?",
            (self.to_vector(vector), among.generation, *values, k),
        )
        return [(float(score), number) for score, number in rows]

    def similarities(
        self, transaction: Transaction, among: Entries, dimension: int, vector: NDArray[np.float32], numbers: list[int]
    ) -> dict[int, float]:
        """Return the cosine of each of these entries, by number."""
        rows = transaction.all(
            f"{_COSINE} AND e.number = ANY(?)", (self.to_vector(vector), among.generation, list(numbers))
        )
        return {number: float(score) for score, number in rows}

    def matching(
        self, transaction: Transaction, among: Entries, terms: Sequence[Term], k: int
    ) -> list[tuple[float, int]] | None:
        """Return (score, entry number) of the `k` entries that match the terms best, ranked by BM25.

        Raises InvalidInputError if that takes too long.
        """
        import psycopg

        transaction.run(f"SET LOCAL statement_timeout = {_WORDS_MILLISECONDS}")
        try:
            found = matching_chunks(transaction, among, terms, k)
        except psycopg.errors.QueryCanceled as error:
            limit = _WORDS_MILLISECONDS / 1000
            raise InvalidInputError(
                "query", f"the search by words took longer than {limit:g} s; use fewer words, or restrict the documents"
            ) from error
        transaction.run("SET LOCAL statement_timeout TO DEFAULT")
        return found

    def build_approximate_index(self, generation: Generation, least: int, tick: Callable[[], object]) -> bool:
        """Create the vector index for the dimension of a generation of at least `least` chunks, if it does not exist."""
        if not self.transact(lambda tx: is_wanted(tx, generation, least), write=False):
            return False
        with self._lock, self._busy_errors():
            return create_index(self._connected(), generation.dimension, tick)

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
                    set_up(
                        transaction,
                        schema(blob="BYTEA", vector="VECTOR", serial="BIGSERIAL PRIMARY KEY", words=_WORDS),
                        self,
                    )
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
