"""SQL for documents, chunks and vectors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from milepost.documents.chunking import Chunk, Segment
from milepost.documents.errors import GenerationChangedError, SupersededError, VersionVanishedError
from milepost.documents.store.catalog import write_origins
from milepost.documents.store.database import (
    SqlStoreBase,
    Transaction,
    add_entries,
    bump_revision,
    delete_published,
    delete_versions,
    move_extractions,
    placeholders,
)
from milepost.documents.store.records import ChunkText, MissingVector, Text, Version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_VERSION: Final = """version_id, generation, document_id, uri, text_id, size, content_hash, fingerprint,
    chunked, chunk_count, truncated"""
_PAGE: Final = 200


class DocumentQueries(SqlStoreBase):
    """From a text to a published document and its chunks."""

    def get_text(self, text_id: str) -> Text | None:
        """Return a text, complete or not, or None."""
        row = self._read(
            lambda tx: tx.one(
                """SELECT format, title, characters, pages, failed_pages, warnings, complete
                FROM texts WHERE text_id = ?""",
                (text_id,),
            )
        )
        if row is None:
            return None
        format, title, characters, pages, failed_pages, warnings, complete = row
        return Text(
            text_id, format, title, characters, pages, failed_pages, tuple(json.loads(warnings)), bool(complete)
        )

    def add_segments(self, text: Text, position: int, segments: Sequence[Segment]) -> None:
        """Add segments of a text, the first at `position` (0, 1, ...).

        Raises `VersionVanishedError` if another job has removed the segments before it.
        """

        def work(tx: Transaction) -> None:
            before = "SELECT 1 FROM segments WHERE text_id = ? AND position = ?"
            if position and tx.one(before, (text.text_id, position - 1)) is None:
                raise VersionVanishedError(text.text_id)
            tx.run(
                """INSERT INTO texts (text_id, format, title, characters, failed_pages, warnings, complete, begun_at)
                VALUES (?, ?, '', 0, 0, '[]', 0, ?) ON CONFLICT DO NOTHING""",
                (text.text_id, text.format, time.time()),
            )
            tx.many(
                """INSERT INTO segments (text_id, position, start, text, pages) VALUES (?, ?, ?, ?, ?)
                ON CONFLICT DO NOTHING""",
                (
                    (text.text_id, position + number, segment.start, segment.text, json.dumps(segment.pages))
                    for number, segment in enumerate(segments)
                ),
            )

        self._write(work)

    def complete_text(self, text: Text) -> None:
        """Mark a text as complete, and store the loader's report."""
        values = (text.format, text.title, text.characters, text.pages, text.failed_pages, json.dumps(text.warnings))

        def work(tx: Transaction) -> None:
            changed = tx.run(
                """UPDATE texts SET format = ?, title = ?, characters = ?, pages = ?, failed_pages = ?, warnings = ?,
                complete = 1 WHERE text_id = ?""",
                (*values, text.text_id),
            )
            if not changed:
                raise VersionVanishedError(text.text_id)

        self._write(work)

    def segments(self, text_id: str) -> Iterator[Segment]:
        """Yield the segments of a text in order, read one at a time."""
        position = 0
        while True:
            row = self._read(
                lambda tx, at=position: tx.one(  # type: ignore[misc]
                    "SELECT start, text, pages FROM segments WHERE text_id = ? AND position = ?", (text_id, at)
                )
            )
            if row is None:
                return
            yield Segment(row[0], row[1], tuple((offset, page) for offset, page in json.loads(row[2])))
            position += 1

    def begin_version(self, version: Version) -> Version:
        """Return the version with this id, created if it does not exist."""

        def work(tx: Transaction) -> Version:
            if tx.one("SELECT 1 FROM generations WHERE generation = ?", (version.generation,)) is None:
                raise GenerationChangedError(f"generation {version.generation} no longer exists")
            tx.run(
                f"INSERT INTO versions ({_VERSION}, begun_at) VALUES ({placeholders(12)}) ON CONFLICT DO NOTHING",
                (
                    version.version_id, version.generation, version.document_id, version.uri, version.text_id,
                    version.size, version.content_hash, version.fingerprint, 0, 0, 0, time.time(),
                ),
            )  # fmt: skip
            row = tx.one(f"SELECT {_VERSION} FROM versions WHERE version_id = ?", (version.version_id,))
            assert row is not None
            values: list[Any] = list(row)
            values[8] = bool(values[8])
            return Version(*values)

        return self._write(work)

    def abandon_version(self, version_id: str) -> None:
        """Delete a version that will not be published. A published one is kept."""

        def work(tx: Transaction) -> None:
            if tx.one("SELECT 1 FROM documents WHERE version_id = ? LIMIT 1", (version_id,)) is None:
                delete_versions(tx, [version_id])

        self._write(work)

    def add_chunks(self, version_id: str, chunks: Sequence[tuple[Chunk, bytes]]) -> None:
        """Add chunks, each with the key of its vector."""

        def work(tx: Transaction) -> None:
            tx.many(
                f"""INSERT INTO chunks (version_id, ordinal, chunk_id, start, stop, tokens, heading, page, text,
                vector_key) VALUES ({placeholders(10)}) ON CONFLICT DO NOTHING""",
                (
                    (
                        version_id, chunk.ordinal, chunk.chunk_id, chunk.start, chunk.stop, chunk.tokens,
                        chunk.heading, chunk.page, chunk.text, key,
                    )
                    for chunk, key in chunks
                ),
            )  # fmt: skip

        self._write(work)

    def complete_chunks(self, version_id: str, *, chunk_count: int, truncated: int) -> None:
        """Mark all chunks of a version as stored. Raises `VersionVanishedError` if another job has removed them."""

        def work(tx: Transaction) -> None:
            found = tx.one("SELECT count(*) FROM chunks WHERE version_id = ?", (version_id,))
            changed = tx.run(
                "UPDATE versions SET chunked = 1, chunk_count = ?, truncated = ? WHERE version_id = ?",
                (chunk_count, truncated, version_id),
            )
            if not changed or found is None or found[0] != chunk_count:
                raise VersionVanishedError(version_id)

        self._write(work)

    def count_missing(self, version_ids: Sequence[str]) -> int:
        """Return the number of chunks of these versions without a vector."""
        row = self._read(lambda tx: tx.one(f"SELECT count(*) {_missing(version_ids)}", version_ids))
        return int(row[0]) if row else 0

    def missing_vectors(self, version_ids: Sequence[str], limit: int) -> list[MissingVector]:
        """Return up to `limit` texts of these versions without a vector, each key once."""
        rows = self._read(
            lambda tx: tx.all(
                f"""SELECT c.vector_key, min(c.text), count(*) {_missing(version_ids)}
                GROUP BY c.vector_key ORDER BY min(c.version_id), min(c.ordinal) LIMIT ?""",
                (*version_ids, limit),
            )
        )
        return [MissingVector(bytes(key), text, count) for key, text, count in rows]

    def put_vectors(self, vectors: Iterable[tuple[bytes, NDArray[np.float32]]]) -> None:
        """Store vectors under their keys. An existing key keeps its vector."""
        rows = [(key, self._db.to_vector(vector), time.time()) for key, vector in vectors]

        def work(tx: Transaction) -> None:
            tx.many("INSERT INTO vectors (vector_key, vector, made_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)

        self._write(work)

    def publish(self, version_id: str) -> bool:
        """Make a version the document, replacing the previous one. Return False if a vector is missing.

        Raises `VersionVanishedError` if it is gone, and `GenerationChangedError` if its generation is.
        """

        def work(tx: Transaction) -> bool:
            row = tx.one(
                """SELECT v.generation, v.document_id, v.chunked, g.generation FROM versions v
                LEFT JOIN generations g ON g.generation = v.generation WHERE version_id = ?""",
                (version_id,),
            )
            if row is None or not row[2]:
                raise VersionVanishedError(version_id)
            generation, document_id, _, known = row
            if known is None:
                raise GenerationChangedError(f"generation {generation} no longer exists")
            if tx.one(f"SELECT 1 {_missing([version_id])} LIMIT 1", (version_id,)):
                return False
            if not self._claim_scope(tx, f"document/{generation}/{document_id}"):
                raise SupersededError(version_id)
            before = tx.one(
                "SELECT version_id FROM documents WHERE generation = ? AND document_id = ?", (generation, document_id)
            )
            tx.run(
                """INSERT INTO documents (generation, document_id, version_id, ingested_at) VALUES (?, ?, ?, ?)
                ON CONFLICT (generation, document_id)
                DO UPDATE SET version_id = excluded.version_id, ingested_at = excluded.ingested_at""",
                (generation, document_id, version_id, datetime.now(UTC).isoformat()),
            )
            if before is None or before[0] != version_id:
                if before is not None:
                    delete_versions(tx, [before[0]])
                add_entries(tx, self._db, generation, version_id)
            if document_id in self.origins.roots:
                write_origins(tx, self.origins, [document_id])
            if document_id in self.moves:
                self._replace(tx, generation, self.moves[document_id], document_id, version_id)
            bump_revision(tx)
            return True

        return self._write(work)

    def _replace(self, tx: Transaction, generation: int, old_id: str, new_id: str, version_id: str) -> None:
        """Delete the document that a version has been moved from, unless a later run has written it."""
        old = tx.one("SELECT version_id FROM documents WHERE generation = ? AND document_id = ?", (generation, old_id))
        if old is not None and self._claim_scope(tx, f"document/{generation}/{old_id}"):
            move_extractions(tx, old[0], version_id)
            tx.run(
                """INSERT INTO document_metadata (document_id, name, value)
                SELECT ?, name, value FROM document_metadata WHERE document_id = ? ON CONFLICT DO NOTHING""",
                (new_id, old_id),
            )
            delete_published(tx, old_id)

    def delete_document(self, document_id: str) -> bool:
        """Delete a document from every generation. Return False if it was in none."""

        def work(tx: Transaction) -> bool:
            for row in tx.all("SELECT generation FROM generations"):
                if not self._claim_scope(tx, f"document/{row[0]}/{document_id}"):
                    raise SupersededError(document_id)
            deleted = delete_published(tx, document_id)
            bump_revision(tx)
            return deleted

        return self._write(work)

    def chunk_texts(self, chunk_ids: Sequence[str]) -> list[ChunkText]:
        """Return the texts of chunks of the active generation, in the order of their ids."""
        found: list[ChunkText] = []
        for start in range(0, len(chunk_ids), _PAGE):
            some = chunk_ids[start : start + _PAGE]
            rows = self._read(
                lambda tx, some=some: tx.all(  # type: ignore[misc]
                    f"""SELECT c.chunk_id, d.document_id, c.text FROM documents d JOIN chunks c USING (version_id)
                    WHERE d.generation = (SELECT generation FROM active_generation)
                    AND c.chunk_id IN ({placeholders(len(some))})""",
                    some,
                )
            )
            found += [ChunkText(*row) for row in rows]
        return sorted(found, key=lambda chunk: chunk.chunk_id)

    def chunk_vectors(self, block: int) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
        """Yield (chunk ids, vectors) of the active generation in blocks of at most `block` rows, ordered by id."""
        active = self.active_generation()
        after = ""
        while active is not None:
            rows = self._read(
                lambda tx, after=after: tx.all(  # type: ignore[misc]
                    f"""SELECT c.chunk_id, v.vector FROM documents d JOIN chunks c USING (version_id)
                    JOIN vectors v USING (vector_key)
                    WHERE d.generation = ? AND c.chunk_id > ? ORDER BY c.chunk_id LIMIT {int(block)}""",
                    (active.number, after),
                )
            )
            if not rows:
                return
            yield [row[0] for row in rows], self._db.from_vectors([row[1] for row in rows], active.dimension)
            after = rows[-1][0]


def _missing(version_ids: Sequence[str]) -> str:
    return f"""FROM chunks c LEFT JOIN vectors v ON v.vector_key = c.vector_key
        WHERE c.version_id IN ({placeholders(len(version_ids))}) AND v.vector_key IS NULL"""
