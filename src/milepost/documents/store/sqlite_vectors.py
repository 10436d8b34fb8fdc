"""Nearest chunks in SQLite: exact ones from a matrix in memory, approximate ones from a graph beyond a number of chunks.

The matrix is brought up to date by reading only what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from milepost.documents.store.database import Entries, Transaction
from milepost.documents.store.vector_files import (
    Commit,
    VectorFiles,
    extend_graph,
    map_graph,
    map_matrix,
    new_graph,
    write_matrix,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from usearch.index import Index


_GROWTH: Final = 1.25
_FIRST_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class State:
    """What a store counts: its publications, and how often entries were removed."""

    revision: str
    removals: str


class VectorCache:
    """The vectors of one generation, by ascending entry number. It grows in place.

    It starts empty, or with the first `count` rows of a saved matrix, which are those of `state`. `unsaved` counts the
    entries that were added and removed since.
    """

    def __init__(
        self,
        generation: int,
        dimension: int,
        saved: tuple[NDArray[np.int64], NDArray[np.float32]] | None = None,
        count: int = 0,
        state: State | None = None,
    ) -> None:
        import numpy as np

        self.generation = generation
        self.state = state or State("", "")
        self.unsaved = 0
        self._count = count
        self._numbers: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._vectors: NDArray[np.float32] = np.empty((0, dimension), dtype=np.float32)
        if saved is not None:
            self._numbers, self._vectors = saved

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The entry numbers."""
        return self._numbers[: self._count]

    @property
    def vectors(self) -> NDArray[np.float32]:
        """The vectors of `numbers`, one a row."""
        return self._vectors[: self._count]

    def places(self, numbers: Iterable[int]) -> NDArray[np.intp]:
        """Return the rows of those of these entries that are here."""
        import numpy as np

        wanted = np.unique(np.fromiter(numbers, dtype=np.int64))
        at = np.searchsorted(self.numbers, wanted)
        inside = at < self._count
        inside[inside] = self.numbers[at[inside]] == wanted[inside]
        found: NDArray[np.intp] = at[inside]
        return found

    def refresh(
        self,
        state: State,
        added: Callable[[int], Iterable[tuple[list[int], NDArray[np.float32]]]],
        present: Callable[[], list[int]],
    ) -> None:
        """Bring the cache to a state of the store.

        `added` returns the entries after a number, in blocks. `present` returns the numbers of all entries, and is called
        only after a removal.
        """
        if state == self.state:
            return
        if self._count and state.removals != self.state.removals:
            self._keep(present())
        for numbers, vectors in added(int(self.numbers[-1]) if self._count else 0):
            self._append(numbers, vectors)
        self.state = state

    def _keep(self, present: list[int]) -> None:
        import numpy as np

        kept = np.flatnonzero(np.isin(self.numbers, np.asarray(present, dtype=np.int64)))
        self.unsaved += self._count - len(kept)
        moved = np.flatnonzero(kept != np.arange(len(kept)))
        if len(moved):  # what stands before the first removed row stays in place
            first = int(moved[0])
            self._numbers[first : len(kept)] = self._numbers[kept[first:]]
            self._vectors[first : len(kept)] = self._vectors[kept[first:]]
        self._count = len(kept)

    def _append(self, numbers: list[int], vectors: NDArray[np.float32]) -> None:
        import numpy as np

        end = self._count + len(numbers)
        if end > len(self._numbers):
            rows = max(end, int(len(self._numbers) * _GROWTH), _FIRST_ROWS)
            more_numbers = np.empty(rows, dtype=np.int64)
            more_vectors = np.empty((rows, self._vectors.shape[1]), dtype=np.float32)
            more_numbers[: self._count], more_vectors[: self._count] = self.numbers, self.vectors
            self._numbers, self._vectors = more_numbers, more_vectors
        self._numbers[self._count : end] = numbers
        self._vectors[self._count : end] = vectors
        self._count = end
        self.unsaved += len(numbers)


_READ_ROWS: Final = 4096
_SAVED_AFTER: Final = 5000
"""Added and removed entries after which the matrix is saved again. Reading as many takes about .3 s."""
_SPARE: Final = 1.1
_STALE_SHARE: Final = 0.1
"""The share of entries that a graph lacks, or has too many, before it is extended or made again."""
_CANDIDATES_PER_HIT: Final = 4
_MIN_CANDIDATES: Final = 200
_VECTORS: Final = """
    SELECT e.number, v.vector FROM index_entries e
    JOIN chunks c ON c.version_id = e.version_id AND c.ordinal = e.ordinal
    JOIN vectors v ON v.vector_key = c.vector_key
    WHERE e.generation = ? AND e.number > ? ORDER BY e.number LIMIT ?
"""


class SqliteVectors:
    """The vectors of one generation, brought up to date in each transaction."""

    def __init__(self, database: Path) -> None:
        self._files = VectorFiles(database)
        self._cache: VectorCache | None = None
        self._graph: tuple[str, Index] | None = None

    def close(self) -> None:
        """Free the memory."""
        self._cache = self._graph = None

    def nearest(
        self, transaction: Transaction, among: Entries, vector: NDArray[np.float32], k: int
    ) -> list[tuple[float, int]]:
        """Return (cosine, entry number) of the `k` nearest entries.

        With a graph and without a filter they are searched among its candidates and the entries that it lacks.
        """
        import numpy as np

        cache = self.refreshed(transaction, among.generation, len(vector))
        numbers, vectors = cache.numbers, cache.vectors
        if among.query is not None:
            places = cache.places(row[0] for row in transaction.all(among.query, among.values))
            numbers, vectors = numbers[places], vectors[places]
        elif (candidates := self._candidates(transaction, cache, vector, k)) is not None:
            numbers, vectors = numbers[candidates], vectors[candidates]
        scores = vectors @ vector
        top = np.argpartition(-scores, k)[:k] if len(scores) > k else np.arange(len(scores))
        return sorted(((float(scores[row]), int(numbers[row])) for row in top), key=lambda hit: (-hit[0], hit[1]))

    def refreshed(self, transaction: Transaction, generation: int, dimension: int) -> VectorCache:
        """Return the vectors of a generation as they are in this transaction."""
        cache = self._cache
        if cache is None or cache.generation != generation:
            cache = self._cache = self._saved(transaction, generation, dimension)
        counts: dict[str, str] = dict(
            transaction.all("SELECT name, value FROM meta WHERE name IN ('revision', 'removals')")
        )

        def added(after: int) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
            while rows := transaction.all(_VECTORS, (generation, after, _READ_ROWS)):
                yield [row[0] for row in rows], vectors_from_bytes([row[1] for row in rows], dimension)
                after = rows[-1][0]

        def present() -> list[int]:
            return [
                row[0]
                for row in transaction.all("SELECT number FROM index_entries WHERE generation = ?", (generation,))
            ]

        cache.refresh(State(counts["revision"], counts["removals"]), added, present)
        return cache

    @property
    def is_unsaved(self) -> bool:
        """Whether so much has changed that the matrix should be saved."""
        return self._cache is not None and self._cache.unsaved >= _SAVED_AFTER

    def save(self, commit: Commit) -> None:
        """Save the matrix.

        It is tried once per change of that size: without the file, searches read the database.
        """
        cache = self._cache
        if cache is None:
            return
        cache.unsaved = 0
        count, state = len(cache.numbers), cache.state
        rows = int(count * _SPARE) + 2 * _SAVED_AFTER
        description = {"rows": rows, "count": count, "revision": state.revision, "removals": state.removals}
        self._files.add(
            "matrix",
            cache.generation,
            description,
            lambda path: write_matrix(path, rows, cache.numbers, cache.vectors),
            commit,
        )

    def build_graph(
        self,
        least: int,
        saved: dict[str, Any] | None,
        commit: Commit,
        tick: Callable[[], object],
    ) -> bool:
        """Make or extend the graph of `least` or more vectors. Return whether it has changed.

        `saved` describes the graph that exists.
        """
        import numpy as np

        cache = self._cache
        if cache is None or len(cache.numbers) < least:
            return False
        numbers, vectors = cache.numbers, cache.vectors
        graph = None if saved is None else map_graph(self._files.path(saved), vectors.shape[1])
        start = 0
        if graph is not None and saved is not None:
            start = int(np.searchsorted(numbers, saved["last"], side="right"))
            removed = len(graph) - start
            if max(removed, len(numbers) - start) <= _STALE_SHARE * len(numbers):
                return False
            graph = graph.copy() if removed <= _STALE_SHARE * len(numbers) else None
        if graph is None:
            graph, start = new_graph(vectors.shape[1]), 0
        extend_graph(graph, numbers[start:], vectors[start:], tick)
        description = {"last": int(numbers[-1])}
        return self._files.add("graph", cache.generation, description, lambda path: graph.save(str(path)), commit)

    def saved_graph(self, transaction: Transaction, generation: int) -> dict[str, Any] | None:
        """Return the description of a generation's graph."""
        return self._files.described(transaction, "graph", generation)

    def _saved(self, transaction: Transaction, generation: int, dimension: int) -> VectorCache:
        """Return the vectors of a generation that are in its file."""
        saved = self._files.described(transaction, "matrix", generation)
        if saved is not None and (matrix := map_matrix(self._files.path(saved), saved, dimension)) is not None:
            return VectorCache(
                generation, dimension, matrix, saved["count"], State(saved["revision"], saved["removals"])
            )
        return VectorCache(generation, dimension)

    def _candidates(
        self, transaction: Transaction, cache: VectorCache, vector: NDArray[np.float32], k: int
    ) -> NDArray[np.intp] | None:
        """Return the rows of the graph's candidates and of the entries that it lacks, or None to compare with all."""
        import numpy as np

        saved = self.saved_graph(transaction, cache.generation)
        if saved is None:
            return None
        if self._graph is None or self._graph[0] != saved["file"]:
            opened = map_graph(self._files.path(saved), len(vector))
            if opened is None:
                return None
            self._graph = saved["file"], opened
        graph = self._graph[1]
        wanted = max(_MIN_CANDIDATES, _CANDIDATES_PER_HIT * k)
        if wanted > len(graph) // 2:
            return None
        known = cache.places(int(key) for key in graph.search(vector, wanted).keys)
        if len(known) < k:  # many of its entries were removed
            return None
        lacking = np.arange(np.searchsorted(cache.numbers, saved["last"], side="right"), len(cache.numbers))
        return np.concatenate([known, lacking])


def vectors_from_bytes(values: Sequence[bytes], dimension: int) -> NDArray[np.float32]:
    """Return stored vectors as an array of shape (len(values), dimension)."""
    import numpy as np

    return np.frombuffer(b"".join(values), dtype="<f4").reshape(len(values), dimension)
