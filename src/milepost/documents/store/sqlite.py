"""SQLite as a document store: one file for the processes of one machine.

numpy finds the nearest chunks in a matrix that is cached until the next change.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from milepost.documents.errors import StoreBusyError
from milepost.documents.store.database import Row, Transaction
from milepost.documents.store.schema import schema, set_up
from milepost.stores.private_files import create_private_file, create_private_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
_TRANSIENT_ERRORS: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})
_PERMANENT_ERRORS: Final = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY})
_BLOCK: Final = 4096
_KEPT_ROWS: Final = 200_000
_LOCK_SECONDS: Final = 0.25
_VECTORS: Final = """
    SELECT c.version_id, c.ordinal, v.vector
    FROM documents d
    JOIN chunks c ON c.version_id = d.version_id
    JOIN vectors v ON v.vector_key = c.vector_key
    WHERE d.generation = ?
"""


@dataclass(frozen=True, slots=True)
class _Matrix:
    """The vectors of a generation at a revision, with the positions of their chunks."""

    of: tuple[int, str]
    places: list[tuple[str, int]]
    vectors: NDArray[np.float32]


class SqliteDatabase:
    """A document database in one file, created with its folder if it does not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._matrix: _Matrix | None = None

    def __str__(self) -> str:
        return str(self._path)

    def transact(self, work: Callable[[Transaction], T], *, write: bool = True) -> T:
        """Run `work` in a transaction: readers on a snapshot, writers one at a time."""
        with self._lock:
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
                raise
            return result

    def to_vector(self, vector: NDArray[np.float32]) -> bytes:
        """Return a vector as little-endian 32-bit floats."""
        return vector.astype("<f4", copy=False).tobytes()

    def from_vectors(self, values: Sequence[Any], dimension: int) -> NDArray[np.float32]:
        """Return stored vectors as an array of shape (len(values), dimension)."""
        import numpy as np

        return np.frombuffer(b"".join(values), dtype="<f4").reshape(len(values), dimension)

    def nearest(
        self, transaction: Transaction, generation: int, dimension: int, vector: NDArray[np.float32], k: int
    ) -> list[tuple[float, str, int]]:
        """Return (cosine, version id, ordinal) of the `k` nearest chunks, by comparing with all of them."""
        import numpy as np

        revision = transaction.one("SELECT value FROM meta WHERE name = 'revision'")
        of = (generation, str(revision and revision[0]))
        kept = self._matrix
        best: list[tuple[float, str, int]] = []
        blocks: Iterable[tuple[list[tuple[str, int]], NDArray[np.float32]]]
        if kept is not None and kept.of == of:
            blocks = [(kept.places, kept.vectors)]
        else:
            blocks = self._read_blocks(generation, dimension, of)
        for places, vectors in blocks:
            scores = vectors @ vector
            top = np.argpartition(-scores, k)[:k] if len(scores) > k else np.arange(len(scores))
            best += [(float(scores[row]), *places[row]) for row in top]
            best = sorted(best, key=lambda hit: (-hit[0], hit[1], hit[2]))[:k]
        return best

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._matrix = None
            if connection is not None and self._pid == os.getpid():
                connection.close()

    def _read_blocks(
        self, generation: int, dimension: int, of: tuple[int, str]
    ) -> Iterable[tuple[list[tuple[str, int]], NDArray[np.float32]]]:
        """Yield all vectors in blocks, and cache them for the next search unless there are too many."""
        import numpy as np

        all_places: list[tuple[str, int]] = []
        all_vectors: list[NDArray[np.float32]] = []
        self._matrix = None
        keep = True
        cursor = self._connected().execute(_VECTORS, (generation,))
        while rows := cursor.fetchmany(_BLOCK):
            places = [(row[0], row[1]) for row in rows]
            vectors = self.from_vectors([row[2] for row in rows], dimension)
            yield places, vectors
            keep = keep and len(all_places) + len(places) <= _KEPT_ROWS
            if keep:
                all_places += places
                all_vectors.append(vectors)
        if keep and all_places:
            self._matrix = _Matrix(of, all_places, np.concatenate(all_vectors))

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None or self._pid != os.getpid():
            create_private_folder(os.path.abspath(self._path.parent))
            create_private_file(str(self._path))
            connection = sqlite3.connect(
                self._path, timeout=_LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
                connection.execute("BEGIN IMMEDIATE")
                set_up(_SqliteTransaction(connection), schema(blob="BLOB", vector="BLOB"))
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            self._connection, self._pid, self._matrix = connection, os.getpid(), None
        return self._connection


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
