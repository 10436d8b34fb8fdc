"""What all verbs stand on: a database, patience with it, and the steps that several of them share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from milepost.documents.store.port import Database, Row, Transaction, patiently
from milepost.documents.store.records import Generation
from milepost.documents.store.recount import recount

T = TypeVar("T")


class Verbs:
    """Runs work on a database, again and again while it is busy."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.waiting: Callable[[str], object] | None = None

    def __str__(self) -> str:
        return str(self._db)

    def close(self) -> None:
        """Free connections; the store may be used again."""
        self._db.close()

    def active_generation(self) -> Generation | None:
        """The generation that searches read, or None while there is none."""
        return self._read(active_generation)

    def _read(self, work: Callable[[Transaction], T]) -> T:
        return patiently(lambda: self._db.transact(work, write=False), self.waiting)

    def _write(self, work: Callable[[Transaction], T]) -> T:
        return patiently(lambda: self._db.transact(work), self.waiting)


def marks(count: int) -> str:
    """`?, ?, ?`: as many placeholders as there are values."""
    return ", ".join("?" * count)


def touch(tx: Transaction) -> None:
    """Say that searches may now find something else."""
    tx.run("UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE name = 'revision'")


def now() -> str:
    """The time, as it is written down."""
    return datetime.now(UTC).isoformat()


def active_generation(tx: Transaction) -> Generation | None:
    """The active generation, read inside a transaction."""
    row = tx.one(
        """SELECT g.generation, g.model, g.dimension, g.settings, 1 FROM active_generation a
        JOIN generations g ON g.generation = a.generation"""
    )
    return to_generation(row) if row is not None else None


def to_generation(row: Row) -> Generation:
    """A generation from its row."""
    settings: dict[str, Any] = json.loads(row[3])
    return Generation(row[0], row[1], row[2], settings, bool(row[4]))


def delete_versions(tx: Transaction, version_ids: Sequence[str]) -> None:
    """Remove versions with their chunks, and texts and findings that nothing else refers to."""
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
        tx.run("DELETE FROM chunks WHERE version_id = ?", (version_id,))
        tx.run("DELETE FROM versions WHERE version_id = ?", (version_id,))
        if text is not None:
            delete_unused_texts(tx, [text[0]])
        if affected:
            recount(tx, [row[0] for row in affected])


def delete_unused_texts(tx: Transaction, text_ids: Sequence[str]) -> None:
    """Remove those of these texts that no version refers to."""
    for text_id in text_ids:
        if tx.one("SELECT 1 FROM versions WHERE text_id = ? LIMIT 1", (text_id,)) is None:
            tx.run("DELETE FROM segments WHERE text_id = ?", (text_id,))
            tx.run("DELETE FROM texts WHERE text_id = ?", (text_id,))
