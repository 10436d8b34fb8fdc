"""Copies of a generation's vectors in files beside an SQLite store, which a new process maps instead of reading all rows.

The matrix serves exact searches, the graph approximate ones. A row of `meta` names the files that belong to the database,
so those of a replaced or restored one are never used. They may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from milepost.documents.errors import StoreBusyError
from milepost.documents.store.database import Transaction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from usearch.index import Index

Kind: TypeAlias = Literal["matrix", "graph"]
Commit: TypeAlias = Callable[[Callable[[Transaction], None]], object]
"""Runs a write transaction."""
_ABANDONED_SECONDS: Final = 3600.0
_NUMBER_BYTES: Final = 8
_GRAPH_EDGES: Final = 16
_GRAPH_EXPANSION: Final = 128
_BLOCK: Final = 4096


class VectorFiles:
    """The files of one database, and the rows that name them."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def described(self, transaction: Transaction, kind: Kind, generation: int) -> dict[str, Any] | None:
        """Return the description of a generation's file, or None if there is no file."""
        row = transaction.one("SELECT value FROM meta WHERE name = ?", (_row_name(kind, generation),))
        return None if row is None else json.loads(row[0])

    def path(self, description: dict[str, Any]) -> Path:
        """Return the path of a described file."""
        return self._database.with_name(f"{self._database.name}-vectors-{description['file']}")

    def add(
        self,
        kind: Kind,
        generation: int,
        description: dict[str, Any],
        write: Callable[[Path], object],
        commit: Commit,
    ) -> bool:
        """Let `write` fill a new file that only its owner can read, and make it the one that processes use.

        Return False if that is impossible now: the disk is full, the folder is not writable, or the database is busy.
        """
        description = {"file": secrets.token_hex(16), **description}
        path = self.path(description)

        def publish(transaction: Transaction) -> None:
            transaction.run(
                """INSERT INTO meta (name, value) VALUES (?, ?)
                ON CONFLICT (name) DO UPDATE SET value = excluded.value""",
                (_row_name(kind, generation), json.dumps(description)),
            )
            self._remove_unused(transaction)

        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            write(path)
            _sync(path)
            commit(publish)
        except (OSError, StoreBusyError, ValueError):
            path.unlink(missing_ok=True)
            return False
        return True

    def _remove_unused(self, transaction: Transaction) -> None:
        """Delete files that no row names. Young ones are kept, because a process may be about to name them."""
        rows = transaction.all("SELECT value FROM meta WHERE name LIKE 'vectors/%'")
        used = {self.path(json.loads(row[0])) for row in rows}
        with contextlib.suppress(OSError):
            for path in self._database.parent.glob(f"{glob.escape(self._database.name)}-vectors-*"):
                if path not in used and time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def map_matrix(
    path: Path, description: dict[str, Any], dimension: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Return the numbers and vectors of a matrix file, with space for more rows, or None if the file is unusable.

    Changes of the arrays stay in this process.
    """
    import numpy as np

    rows = int(description["rows"])
    try:
        if path.stat().st_size != rows * (_NUMBER_BYTES + 4 * dimension):
            return None
        numbers = np.memmap(path, "<i8", "c", 0, (rows,))
        vectors = np.memmap(path, "<f4", "c", rows * _NUMBER_BYTES, (rows, dimension))
    except (OSError, ValueError):
        return None
    return numbers.view(np.ndarray), vectors.view(np.ndarray)


def write_matrix(path: Path, rows: int, numbers: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
    """Write numbers and vectors to a file with space for `rows` rows. What is not filled takes none on the disk."""
    with path.open("r+b") as file:
        file.write(numbers.astype("<i8", copy=False).data)
        file.seek(rows * _NUMBER_BYTES)
        file.write(vectors.astype("<f4", copy=False).data)
        file.truncate(rows * (_NUMBER_BYTES + 4 * vectors.shape[1]))


def new_graph(dimension: int) -> Index:
    """Return an empty graph (HNSW) of vectors with 8 bits per component, which find the candidates of a search."""
    from usearch.index import Index

    return Index(
        ndim=dimension,
        metric="ip",
        dtype="i8",
        connectivity=_GRAPH_EDGES,
        expansion_add=_GRAPH_EXPANSION,
        expansion_search=_GRAPH_EXPANSION,
    )


def map_graph(path: Path, dimension: int) -> Index | None:
    """Return the graph in a file, mapped into memory, or None if the file is unusable."""
    graph = new_graph(dimension)
    try:
        graph.view(str(path))
    except (OSError, ValueError, RuntimeError):
        return None
    return graph


def extend_graph(
    graph: Index, numbers: NDArray[np.int64], vectors: NDArray[np.float32], tick: Callable[[], object]
) -> None:
    """Add vectors to a graph. `tick` is called about once a second, and may raise to give up."""
    for start in range(0, len(numbers), _BLOCK):
        tick()
        part = slice(start, start + _BLOCK)
        graph.add(numbers[part].astype("uint64"), vectors[part])


def _row_name(kind: Kind, generation: int) -> str:
    return f"vectors/{kind}/{generation}"
