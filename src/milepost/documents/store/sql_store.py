"""The document store: documents with their chunks and vectors, and the entities found in them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from milepost.documents.errors import GenerationChangedError
from milepost.documents.store.catalog import CatalogQueries
from milepost.documents.store.database import (
    Transaction,
    active_generation,
    bump_revision,
    delete_unused_texts,
    delete_versions,
    now,
    recount,
    retry_while_busy,
    to_generation,
)
from milepost.documents.store.documents import DocumentQueries
from milepost.documents.store.entities import EntityQueries
from milepost.documents.store.records import Generation, StoredDocument
from milepost.documents.store.searches import SearchQueries

_UNINDEXED = """
    SELECT d.document_id FROM documents d
    JOIN versions v ON v.version_id = d.version_id
    LEFT JOIN documents n ON n.generation = ? AND n.document_id = d.document_id
    LEFT JOIN versions nv ON nv.version_id = n.version_id
    WHERE d.generation = (SELECT generation FROM active_generation)
      AND (nv.text_id IS NULL OR nv.text_id <> v.text_id)
"""
_SURPLUS = """
    SELECT n.document_id, n.version_id FROM documents n WHERE n.generation = ? AND NOT EXISTS (
        SELECT 1 FROM documents d WHERE d.document_id = n.document_id
        AND d.generation = (SELECT generation FROM active_generation))
"""


class DocumentStore(CatalogQueries, DocumentQueries, SearchQueries, EntityQueries):
    """Documents, chunks, vectors and generations; entities, relations and communities.

    Each method is one atomic step, and every write can be repeated with the same result. Readers see a document as a
    whole or not at all. A store that is locked, full or unavailable is retried for a while; `on_wait` is called with
    the reason, and finally `StoreBusyError` is raised. A store can be used from several threads and processes.
    """

    def generations(self) -> list[Generation]:
        """Return all generations, oldest first."""
        rows = self._read(
            lambda tx: tx.all(
                """SELECT g.generation, g.model, g.dimension, g.settings,
                CASE WHEN a.generation IS NULL THEN 0 ELSE 1 END
                FROM generations g LEFT JOIN active_generation a ON a.generation = g.generation
                ORDER BY g.generation"""
            )
        )
        return [to_generation(row) for row in rows]

    def ensure_generation(self, model: str, dimension: int, settings: dict[str, Any]) -> Generation:
        """Return the active generation. While it has no documents, it is replaced by one with these settings."""

        def work(tx: Transaction) -> Generation:
            active = active_generation(tx)
            if active is not None:
                if (active.model, active.dimension, active.settings) == (model, dimension, settings) or tx.one(
                    "SELECT 1 FROM documents WHERE generation = ? LIMIT 1", (active.number,)
                ):
                    return active
                _drop(tx, active.number)
            number = _insert(tx, model, dimension, settings)
            tx.run(
                """INSERT INTO active_generation (only_row, generation) VALUES (1, ?)
                ON CONFLICT (only_row) DO UPDATE SET generation = excluded.generation""",
                (number,),
            )
            return Generation(number, model, dimension, settings, active=True)

        return self._write(work)

    def begin_generation(self, model: str, dimension: int, settings: dict[str, Any]) -> Generation:
        """Return the inactive generation with this model and these settings, created if it does not exist."""

        def work(tx: Transaction) -> Generation:
            row = tx.one(
                """SELECT generation FROM generations WHERE model = ? AND dimension = ? AND settings = ?
                AND generation NOT IN (SELECT generation FROM active_generation) ORDER BY generation LIMIT 1""",
                (model, dimension, _plain(settings)),
            )
            number = int(row[0]) if row is not None else _insert(tx, model, dimension, settings)
            return Generation(number, model, dimension, settings, active=False)

        return self._write(work)

    def unindexed(self, generation: int) -> list[StoredDocument]:
        """Return the active documents whose current text is not published in another generation."""
        rows = self._read(lambda tx: tx.all(f"{_UNINDEXED} ORDER BY d.document_id", (generation,)))
        found = [self.document(row[0]) for row in rows]
        return [document for document in found if document is not None]

    def activate(self, generation: int) -> bool:
        """Make a generation the active one and drop all others. Return False and change nothing if it lacks documents.

        Raises `GenerationChangedError` if it is gone.
        """

        def work(tx: Transaction) -> bool:
            if tx.one("SELECT 1 FROM generations WHERE generation = ?", (generation,)) is None:
                raise GenerationChangedError(f"generation {generation} is gone")
            if tx.one(f"{_UNINDEXED} LIMIT 1", (generation,)) is not None:
                return False
            if not self._claim_scope(tx, "index"):
                raise GenerationChangedError("a reindex job that began later has switched the index")
            surplus = tx.all(_SURPLUS, (generation,))  # deleted after they were indexed
            tx.many("DELETE FROM documents WHERE version_id = ?", [(row[1],) for row in surplus])
            delete_versions(tx, [row[1] for row in surplus])
            tx.run("UPDATE active_generation SET generation = ?", (generation,))
            for row in tx.all("SELECT generation FROM generations WHERE generation <> ?", (generation,)):
                _drop(tx, row[0])
            recount(tx)
            bump_revision(tx)
            return True

        return self._write(work)

    def drop_generation(self, generation: int) -> None:
        """Delete an inactive generation. Raises `ValueError` for the active one."""

        def work(tx: Transaction) -> None:
            active = active_generation(tx)
            if active is not None and active.number == generation:
                raise ValueError(f"generation {generation} is active and cannot be dropped")
            _drop(tx, generation)

        self._write(work)

    def build_approximate_index(self, generation: Generation, least: int | None, tick: Callable[[], object]) -> bool:
        """Make or extend the index with which searches find the nearest of at least `least` chunks without comparing all.

        Return whether it changed. `tick` is called between steps, and may raise to give up. Searches work without the
        index, and find chunks that it lacks.
        """
        enough = self._db.approximate_from if least is None else least
        return retry_while_busy(lambda: self._db.build_approximate_index(generation, enough, tick), self.on_wait)

    def counts(self) -> dict[str, int]:
        """Return the visible numbers of documents, chunks, vectors, entities, mentions, relations and communities."""
        active = "(SELECT generation FROM active_generation)"
        chunks = f"FROM documents d JOIN chunks c ON c.version_id = d.version_id WHERE d.generation = {active}"
        queries = {
            "documents": f"SELECT count(*) FROM documents WHERE generation = {active}",
            "chunks": f"SELECT count(*) {chunks}",
            "vectors": "SELECT count(*) FROM vectors",
            "entities": "SELECT count(*) FROM entities",
            "mentions": f"SELECT count(*) FROM mentions WHERE chunk_id IN (SELECT c.chunk_id {chunks})",
            "relations": f"SELECT count(*) FROM relations WHERE chunk_id IN (SELECT c.chunk_id {chunks})",
            "communities": "SELECT count(*) FROM communities",
        }

        def work(tx: Transaction) -> dict[str, int]:
            return {name: int((tx.one(sql) or (0,))[0]) for name, sql in queries.items()}

        return self._read(work)

    def prune(self, *, older_than: float) -> int:
        """Delete what was begun more than `older_than` seconds ago and never published. Return the number of rows."""
        before = time.time() - older_than

        def work(tx: Transaction) -> int:
            versions = tx.all(
                """SELECT version_id FROM versions v WHERE begun_at < ? AND NOT EXISTS (
                    SELECT 1 FROM documents d WHERE d.version_id = v.version_id)""",
                (before,),
            )
            delete_versions(tx, [row[0] for row in versions])
            texts = tx.all(
                """SELECT text_id FROM texts t WHERE begun_at < ? AND NOT EXISTS (
                    SELECT 1 FROM versions v WHERE v.text_id = t.text_id)""",
                (before,),
            )
            delete_unused_texts(tx, [row[0] for row in texts])
            vectors = tx.run(
                """DELETE FROM vectors WHERE made_at < ?
                AND NOT EXISTS (SELECT 1 FROM chunks c WHERE c.vector_key = vectors.vector_key)
                AND NOT EXISTS (SELECT 1 FROM entities e WHERE e.vector_key = vectors.vector_key)""",
                (before,),
            )
            tx.run("DELETE FROM fences WHERE fence < ?", (int(before * 1_000_000),))  # fences are times
            return len(versions) + len(texts) + vectors

        return self._write(work)


def _plain(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _insert(tx: Transaction, model: str, dimension: int, settings: dict[str, Any]) -> int:
    row = tx.one("SELECT coalesce(max(generation), 0) + 1 FROM generations")
    number = int(row[0]) if row is not None else 1
    last = tx.one("SELECT value FROM meta WHERE name = 'last_generation'")
    number = max(
        number, int(last[0]) + 1 if last is not None else 1
    )  # the number of a dropped generation is never reused
    tx.run(
        """INSERT INTO meta (name, value) VALUES ('last_generation', ?)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value""",
        (str(number),),
    )
    tx.run(
        "INSERT INTO generations (generation, model, dimension, settings, created_at) VALUES (?, ?, ?, ?, ?)",
        (number, model, dimension, _plain(settings), now()),
    )
    return number


def _drop(tx: Transaction, generation: int) -> None:
    tx.run("DELETE FROM documents WHERE generation = ?", (generation,))
    versions = tx.all("SELECT version_id FROM versions WHERE generation = ?", (generation,))
    delete_versions(tx, [row[0] for row in versions])
    tx.run("DELETE FROM generations WHERE generation = ?", (generation,))
    tx.run("DELETE FROM meta WHERE name LIKE ?", (f"vectors/%/{generation}",))
