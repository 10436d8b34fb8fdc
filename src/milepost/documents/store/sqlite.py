"""SQLite as a document store: one file for the processes of one machine.

numpy finds the nearest chunks in a matrix that is kept in memory, and FTS5 those with the words of a query.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from milepost.documents.errors import StoreBusyError
from milepost.documents.store.database import Entries, Row, Transaction
from milepost.documents.store.records import Generation
from milepost.documents.store.schema import schema, set_up
from milepost.documents.store.sqlite_vectors import SqliteVectors, vectors_from_bytes
from milepost.documents.words import K1, Term, term_weight
from milepost.forks import close_before_fork, keep_inherited
from milepost.stores.private_files import create_private_file, create_private_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
_TRANSIENT_ERRORS: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
_PERMANENT_ERRORS: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY})
_LOCK_SECONDS: Final = 0.25
_WORDS: Final = "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(body, tokenize = 'unicode61 remove_diacritics 0')"
_PLAIN_WORDS: Final = "CREATE TABLE IF NOT EXISTS words (rowid INTEGER PRIMARY KEY, body TEXT NOT NULL)"
"""The same table without FTS5. It becomes an index when the store is opened by a Python that has FTS5."""


class SqliteDatabase:
    """A document database in one file, created with its folder if it does not exist."""

    approximate_from = 200_000

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self.lock = threading.RLock()
        """Held while the connection is used, so not while a graph is built: a fork waits for it."""
        self._connection: sqlite3.Connection | None = None
        self._vectors = SqliteVectors(path)
        self._has_words = False
        close_before_fork(self)

    @property
    def is_busy(self) -> bool:
        """Return whether a transaction is open."""
        return self._connection is not None and self._connection.in_transaction

    def after_fork(self) -> None:
        """Leave the locks, and a connection that was in use, to the parent."""
        self._lock, self.lock = threading.RLock(), threading.RLock()
        if self._connection is not None:
            keep_inherited(self._connection)
            self._connection = None

    def __str__(self) -> str:
        return str(self._path)

    def transact(self, work: Callable[[Transaction], T], *, write: bool = True) -> T:
        """Run `work` in a transaction: readers on a snapshot, writers one at a time."""
        with self._lock, self.lock:
            try:
                connection = self._connected()
                connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
                try:
                    result = work(_SqliteTransaction(connection))
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except sqlite3.DatabaseError as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in _TRANSIENT_ERRORS:
                    raise StoreBusyError(f"the document store {self._path.name} is busy: {error}") from error
                if code in _PERMANENT_ERRORS:
                    raise ValueError(f"{self._path} cannot be used as a document store: {error}") from error
                if not self._has_words and str(error).startswith("no such module: fts5"):
                    raise ValueError(
                        f"{self._path} has an index of words, which SQLite of this Python cannot change; "
                        "use a Python with FTS5"
                    ) from error
                raise
            if not write and self._vectors.is_unsaved:
                self._vectors.save(self.transact)
            return result

    def to_vector(self, vector: NDArray[np.float32]) -> bytes:
        """Return a vector as little-endian 32-bit floats."""
        return vector.astype("<f4", copy=False).tobytes()

    def from_vectors(self, values: Sequence[Any], dimension: int) -> NDArray[np.float32]:
        """Return stored vectors as an array of shape (len(values), dimension)."""
        return vectors_from_bytes(values, dimension)

    def to_words(self, words: Sequence[str]) -> str:
        """Return words separated by spaces."""
        return " ".join(words)

    def nearest(
        self, transaction: Transaction, among: Entries, dimension: int, vector: NDArray[np.float32], k: int
    ) -> list[tuple[float, int]]:
        """Return (cosine, entry number) of the `k` nearest entries."""
        return self._vectors.nearest(transaction, among, vector, k)

    def similarities(
        self, transaction: Transaction, among: Entries, dimension: int, vector: NDArray[np.float32], numbers: list[int]
    ) -> dict[int, float]:
        """Return the cosine of each of these entries, by number."""
        cache = self._vectors.refreshed(transaction, among.generation, dimension)
        places = cache.places(numbers)
        found = zip(cache.numbers[places].tolist(), (cache.vectors[places] @ vector).tolist(), strict=True)
        return dict(found)

    def matching(
        self, transaction: Transaction, among: Entries, terms: Sequence[Term], k: int
    ) -> list[tuple[float, int]] | None:
        """Return (score, entry number) of the `k` entries that match the terms best, ranked by FTS5's BM25."""
        if not self._has_words:
            return None
        if not terms:
            return []
        quoted = ['"' + " ".join(term) + '"' for term in terms]
        total = (transaction.one("SELECT count(*) FROM index_entries") or (0,))[0]
        best = 0.0
        for phrase in quoted:
            row = transaction.one("SELECT count(*) FROM words WHERE words MATCH ?", (phrase,))
            best += term_weight(row[0] if row else 0, total) * (K1 + 1)
        if not best:
            return []
        # With the plus SQLite reads the matches and then the condition; FTS5 would be asked again for each number.
        condition, values = among.condition("+e.number")
        rows = transaction.all(
            f"""SELECT -bm25(words), e.number FROM words w JOIN index_entries e ON e.number = w.rowid
            WHERE words MATCH ? AND e.generation = ? {condition} ORDER BY bm25(words), e.number LIMIT ?""",
            (" OR ".join(quoted), among.generation, *values, k),
        )
        return [(min(1.0, score / best), number) for score, number in rows]

    def build_approximate_index(self, generation: Generation, least: int, tick: Callable[[], object]) -> bool:
        """Make or extend the graph of a generation of at least `least` chunks, and save its vectors for other processes."""
        with self._lock:

            def read(transaction: Transaction) -> dict[str, Any] | None:
                self._vectors.refreshed(transaction, generation.number, generation.dimension)
                return self._vectors.saved_graph(transaction, generation.number)

            saved = self.transact(read, write=False)
            return self._vectors.build_graph(least, saved, self.transact, tick)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._vectors.close()
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection alone."""
        with self.lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            create_private_folder(os.path.abspath(self._path.parent))
            create_private_file(str(self._path))
            connection = sqlite3.connect(
                self._path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
            # SQLite's own knows only the capitals of ASCII.
            connection.create_function("lower", 1, lambda text: text and text.lower(), deterministic=True)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                has_words = has_fts5(connection)
                statements = schema(
                    blob="BLOB",
                    vector="BLOB",
                    serial="INTEGER PRIMARY KEY AUTOINCREMENT",
                    words=_WORDS if has_words else _PLAIN_WORDS,
                )
                connection.execute("BEGIN IMMEDIATE")
                set_up(_SqliteTransaction(connection), statements, self)
                if has_words:
                    _index_plain_words(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            self._has_words = has_words
            self._connection = connection
            self._vectors.close()
        return self._connection


def has_fts5(connection: sqlite3.Connection) -> bool:
    """Return whether this Python's SQLite can index words."""
    return connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone() is not None


def _index_plain_words(connection: sqlite3.Connection) -> None:
    """Index words that were stored by a Python without FTS5."""
    (made,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'words'").fetchone()
    if "fts5" not in made:
        connection.execute("ALTER TABLE words RENAME TO plain_words")
        connection.execute(_WORDS)
        connection.execute("INSERT INTO words (rowid, body) SELECT rowid, body FROM plain_words")
        connection.execute("DROP TABLE plain_words")


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()

    def one(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        row: Row | None = self._connection.execute(sql, values).fetchone()
        return row

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        return self._connection.execute(sql, values).rowcount

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(sql, rows)
