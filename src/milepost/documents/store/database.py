"""The database behind a document store, and the base of the stores' SQL.

Statements are written once for SQLite and PostgreSQL, with `?` for values.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from milepost.core.errors import LeaseLost
from milepost.documents.errors import StoreBusyError
from milepost.documents.store.records import Generation, Origins
from milepost.documents.words import Term, words_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
Row = tuple[Any, ...]
MAX_WAIT_SECONDS: Final = 600.0
_MAX_DELAY: Final = 5.0
_TICK_SECONDS: Final = 0.1
_BATCH_SIZE: Final = 500


class Transaction(Protocol):
    """Statements that are applied together or not at all."""

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return all rows."""
        ...

    def one(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        """Return the first row, or None."""
        ...

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement, and return the number of changed rows."""
        ...

    def many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row of values."""
        ...


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of a generation that a search may find: all, or those whose number an SQL query returns."""

    generation: int
    query: str | None = None
    values: tuple[Any, ...] = ()

    def condition(self, number: str) -> tuple[str, tuple[Any, ...]]:
        """Return an SQL condition on the column `number`, and its values."""
        if self.query is None:
            return "", ()
        return f"AND {number} IN ({self.query})", self.values


class Database(Protocol):
    """A database that can store documents.

    `approximate_from` is the number of chunks from which on its searches use an approximate index, unless the operator sets
    another. Comparing with fewer takes about .1 s.
    """

    approximate_from: int

    def transact(self, work: Callable[[Transaction], T], *, write: bool = True) -> T:
        """Run `work` in a transaction. Raises `StoreBusyError` for transient errors: locked, full, unavailable."""
        ...

    def to_vector(self, vector: NDArray[np.float32]) -> Any:
        """Return a vector as this database stores it."""
        ...

    def from_vectors(self, values: Sequence[Any], dimension: int) -> NDArray[np.float32]:
        """Return stored vectors as an array of shape (len(values), dimension)."""
        ...

    def to_words(self, words: Sequence[str]) -> str:
        """Return the words of a chunk as this database stores them."""
        ...

    def nearest(
        self, transaction: Transaction, among: Entries, dimension: int, vector: NDArray[np.float32], k: int
    ) -> list[tuple[float, int]]:
        """Return (cosine, entry number) of the `k` nearest entries, best first."""
        ...

    def similarities(
        self, transaction: Transaction, among: Entries, dimension: int, vector: NDArray[np.float32], numbers: list[int]
    ) -> dict[int, float]:
        """Return the cosine of each of these entries, by number."""
        ...

    def matching(
        self, transaction: Transaction, among: Entries, terms: Sequence[Term], k: int
    ) -> list[tuple[float, int]] | None:
        """Return (score, entry number) of the `k` entries that match the terms best, best first.

        The score is at most 1, and 1 if all terms occur very often. None if this database has no index of words.
        """
        ...

    def build_approximate_index(self, generation: Generation, least: int, tick: Callable[[], object]) -> bool:
        """Make or extend the approximate index of a generation of at least `least` chunks. Return whether it changed.

        `tick` is called between steps, and may raise to give up.
        """
        ...

    def close(self) -> None:
        """Close connections. They are opened again when needed."""
        ...


def retry_while_busy(
    work: Callable[[], T], on_wait: Callable[[str], object] | None, *, max_wait: float = MAX_WAIT_SECONDS
) -> T:
    """Call `work` until it does not raise `StoreBusyError`, for up to `max_wait` seconds.

    `on_wait` is called often with the reason, and with an empty string when `work` succeeds; it may raise to give up.
    """
    deadline = time.monotonic() + max_wait
    pause = _TICK_SECONDS
    while True:
        try:
            done = work()
            if on_wait is not None and pause > _TICK_SECONDS:
                on_wait("")
            return done
        except StoreBusyError as busy:
            if time.monotonic() + pause > deadline:
                raise
            resume = time.monotonic() + pause
            while (left := resume - time.monotonic()) > 0:
                if on_wait is not None:
                    on_wait(str(busy))
                time.sleep(min(left, _TICK_SECONDS))
            pause = min(pause * 2, _MAX_DELAY)


class SqlStoreBase:
    """Runs transactions, retries them while the database is busy, and fences writes.

    `moves` are ids of documents, each with the id of the document that is deleted in the transaction that publishes it.
    `origins` are written in the transaction that publishes a document, because a document deleted before has none left.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self.on_wait: Callable[[str], object] | None = None
        self.moves: dict[str, str] = {}
        self.origins = Origins()
        self._run: tuple[str, int] | None = None

    def __str__(self) -> str:
        return str(self._db)

    def close(self) -> None:
        """Free connections. The store can be used again."""
        self._db.close()

    def active_generation(self) -> Generation | None:
        """Return the generation that searches use, or None."""
        return self._read(active_generation)

    def begin_run(self, job_id: str, fence: int) -> None:
        """Fence writes: from now on write for this run of a job, and refuse writes of its earlier runs.

        `fence` is the fencing token of the run. Each write of a run raises `LeaseLost` once a later run of its job has
        begun. Publishing raises `SupersededError` (`activate`: `GenerationChangedError`) for data that a later run has
        written. Without this call nothing is refused.
        """
        if fence > 0:  # not called from a job
            self._run = job_id, fence
            self._write(lambda tx: self._claim_scope(tx, f"job/{job_id}"))

    def _claim_scope(self, tx: Transaction, scope: str, detail: str = "") -> bool:
        """Record this run's fence for what it writes. Return False if a later run has written it with another `detail`."""
        if self._run is None:
            return True
        _, fence = self._run
        row = tx.one("SELECT fence, detail FROM fences WHERE scope = ?", (scope,))
        if row is not None and row[0] > fence:
            return bool(detail) and row[1] == detail
        tx.run(
            """INSERT INTO fences (scope, fence, detail) VALUES (?, ?, ?)
            ON CONFLICT (scope) DO UPDATE SET fence = excluded.fence, detail = excluded.detail""",
            (scope, fence, detail),
        )
        return True

    def _read(self, work: Callable[[Transaction], T]) -> T:
        return retry_while_busy(lambda: self._db.transact(work, write=False), self.on_wait)

    def _write(self, work: Callable[[Transaction], T]) -> T:
        def fenced(tx: Transaction) -> T:
            if self._run is not None:
                job_id, fence = self._run
                row = tx.one("SELECT fence FROM fences WHERE scope = ?", (f"job/{job_id}",))
                if row is not None and row[0] > fence:
                    raise LeaseLost("a later run of this job has begun, so this run can no longer change documents")
            return work(tx)

        return retry_while_busy(lambda: self._db.transact(fenced), self.on_wait)


def placeholders(count: int) -> str:
    """Return `?, ?, ?` with one placeholder per value."""
    return ", ".join("?" * count)


def add_entries(tx: Transaction, database: Database, generation: int, version_id: str) -> None:
    """Add the chunks of a published version to what searches find."""
    tx.run(
        """INSERT INTO index_entries (generation, version_id, ordinal)
        SELECT ?, version_id, ordinal FROM chunks WHERE version_id = ? ORDER BY ordinal""",
        (generation, version_id),
    )
    after = -1
    while rows := tx.all(
        f"""SELECT c.ordinal, e.number, c.heading, c.text FROM chunks c
        JOIN index_entries e ON e.version_id = c.version_id AND e.ordinal = c.ordinal
        WHERE c.version_id = ? AND c.ordinal > ? ORDER BY c.ordinal LIMIT {_BATCH_SIZE}""",
        (version_id, after),
    ):
        tx.many(
            "INSERT INTO words (rowid, body) VALUES (?, ?)",
            [(number, database.to_words(words_of(f"{heading} {text}"))) for _, number, heading, text in rows],
        )
        after = rows[-1][0]


def remove_entries(tx: Transaction, version_id: str) -> None:
    """Remove the chunks of a version from what searches find."""
    numbers = "SELECT number FROM index_entries WHERE version_id = ?"
    tx.run(f"DELETE FROM words WHERE rowid IN ({numbers})", (version_id,))
    if tx.run("DELETE FROM index_entries WHERE version_id = ?", (version_id,)):
        tx.run("UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE name = 'removals'")


def bump_revision(tx: Transaction) -> None:
    """Invalidate cached vectors, because searches may now find something else."""
    tx.run("UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE name = 'revision'")


def now() -> str:
    """Return the current time as stored."""
    return datetime.now(UTC).isoformat()


def active_generation(tx: Transaction) -> Generation | None:
    """Return the active generation, read within a transaction."""
    row = tx.one(
        """SELECT g.generation, g.model, g.dimension, g.settings, 1 FROM active_generation a
        JOIN generations g ON g.generation = a.generation"""
    )
    return to_generation(row) if row is not None else None


def to_generation(row: Row) -> Generation:
    """Return a generation from its row."""
    settings: dict[str, Any] = json.loads(row[3])
    settings.pop("endpoint", None)  # older indexes have one, which must not be used
    return Generation(row[0], row[1], row[2], settings, bool(row[4]))


def delete_versions(tx: Transaction, version_ids: Sequence[str]) -> None:
    """Delete versions with their chunks, and the texts and entities that nothing else refers to."""
    for version_id in version_ids:
        affected = tx.all(
            """SELECT DISTINCT m.entity_id FROM chunks c JOIN mentions m ON m.chunk_id = c.chunk_id
            WHERE c.version_id = ?""",
            (version_id,),
        )
        text = tx.one("SELECT text_id FROM versions WHERE version_id = ?", (version_id,))
        for table in ("mentions", "relations", "extractions"):
            tx.run(
                f"""DELETE FROM {table} WHERE chunk_id IN (
                    SELECT c.chunk_id FROM chunks c WHERE c.version_id = ? AND NOT EXISTS (
                        SELECT 1 FROM chunks o WHERE o.chunk_id = c.chunk_id AND o.version_id <> c.version_id))""",
                (version_id,),
            )
        remove_entries(tx, version_id)
        tx.run("DELETE FROM chunks WHERE version_id = ?", (version_id,))
        tx.run("DELETE FROM versions WHERE version_id = ?", (version_id,))
        if text is not None:
            delete_unused_texts(tx, [text[0]])
        if affected:
            recount(tx, [row[0] for row in affected])


def delete_published(tx: Transaction, document_id: str) -> bool:
    """Delete a document from every generation. Return False if it was in none."""
    rows = tx.all("SELECT version_id FROM documents WHERE document_id = ?", (document_id,))
    tx.run("DELETE FROM documents WHERE document_id = ?", (document_id,))
    for table in ("document_roots", "document_owners", "document_metadata"):
        tx.run(f"DELETE FROM {table} WHERE document_id = ?", (document_id,))
    delete_versions(tx, [row[0] for row in rows])
    return bool(rows)


def move_extractions(tx: Transaction, old: str, new: str) -> None:
    """Give what was extracted from the chunks of a version to those of another one with the same texts."""
    pairs = tx.all(
        """SELECT n.chunk_id, o.chunk_id FROM chunks o JOIN chunks n ON n.ordinal = o.ordinal AND n.text = o.text
        WHERE o.version_id = ? AND n.version_id = ?""",
        (old, new),
    )
    for table in ("mentions", "relations", "extractions"):
        tx.many(f"UPDATE {table} SET chunk_id = ? WHERE chunk_id = ?", pairs)


def delete_unused_texts(tx: Transaction, text_ids: Sequence[str]) -> None:
    """Delete those of these texts that no version refers to."""
    for text_id in text_ids:
        if tx.one("SELECT 1 FROM versions WHERE text_id = ? LIMIT 1", (text_id,)) is None:
            tx.run("DELETE FROM segments WHERE text_id = ?", (text_id,))
            tx.run("DELETE FROM texts WHERE text_id = ?", (text_id,))


ACTIVE_CHUNKS: Final = """
    SELECT ac.chunk_id FROM documents ad JOIN chunks ac ON ac.version_id = ad.version_id
    WHERE ad.generation = (SELECT generation FROM active_generation)
"""
_RECOUNT: Final = """
    WITH live AS (
        SELECT m.entity_id, m.chunk_id, m.name, m.label, m.occurrences FROM mentions m
        WHERE m.chunk_id IN ({active}) {only}
    ), totals AS (
        SELECT entity_id, sum(occurrences) AS mentions, count(DISTINCT chunk_id) AS chunks
        FROM live GROUP BY entity_id
    ), names AS (
        SELECT entity_id, name,
            row_number() OVER (PARTITION BY entity_id ORDER BY sum(occurrences) DESC, name) AS place
        FROM live GROUP BY entity_id, name
    ), labels AS (
        SELECT entity_id, label,
            row_number() OVER (PARTITION BY entity_id ORDER BY sum(occurrences) DESC, label) AS place
        FROM live GROUP BY entity_id, label
    )
    INSERT INTO entities (entity_id, name, label, mention_count, chunk_count)
    SELECT t.entity_id, n.name, l.label, t.mentions, t.chunks FROM totals t
    JOIN names n ON n.entity_id = t.entity_id AND n.place = 1
    JOIN labels l ON l.entity_id = t.entity_id AND l.place = 1
    WHERE t.mentions > 0
    ON CONFLICT (entity_id) DO UPDATE SET name = excluded.name, label = excluded.label,
        mention_count = excluded.mention_count, chunk_count = excluded.chunk_count
"""
_DROP: Final = """
    DELETE FROM entities WHERE NOT EXISTS (
        SELECT 1 FROM mentions m WHERE m.entity_id = entities.entity_id AND m.chunk_id IN ({active})) {only}
"""


def recount(tx: Transaction, entity_ids: Sequence[str] | None = None) -> None:
    """Recompute the names, labels and counts of all entities, or of these, from mentions in active chunks. Delete those
    without any.
    """
    if entity_ids is None:
        tx.run(_DROP.format(active=ACTIVE_CHUNKS, only=""))
        tx.run(_RECOUNT.format(active=ACTIVE_CHUNKS, only=""))
        return
    for start in range(0, len(entity_ids), _BATCH_SIZE):
        some = entity_ids[start : start + _BATCH_SIZE]
        places = ", ".join("?" * len(some))
        tx.run(_DROP.format(active=ACTIVE_CHUNKS, only=f"AND entity_id IN ({places})"), some)
        tx.run(_RECOUNT.format(active=ACTIVE_CHUNKS, only=f"AND m.entity_id IN ({places})"), some)
