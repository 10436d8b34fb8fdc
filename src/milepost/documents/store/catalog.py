"""Lists of published documents, and the folders they came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from milepost.documents.store.database import Row, SqlStoreBase, Transaction
from milepost.documents.store.filters import DocumentFilter
from milepost.documents.store.records import StoredDocument

_DOCUMENT: Final = """
    SELECT d.document_id, v.uri, t.title, t.format, v.size, v.content_hash, v.fingerprint, v.text_id,
           v.version_id, t.characters, t.pages, t.failed_pages, t.warnings, v.chunk_count, v.truncated, d.ingested_at,
           coalesce(r.root, '')
    FROM documents d
    JOIN versions v ON v.version_id = d.version_id
    JOIN texts t ON t.text_id = v.text_id
    LEFT JOIN document_roots r ON r.document_id = d.document_id
"""
_PAGE: Final = 200


class CatalogQueries(SqlStoreBase):
    """List and look up documents."""

    def document(self, document_id: str, *, generation: int | None = None) -> StoredDocument | None:
        """Return a published document of the active or the given generation, or None."""
        row = self._read(
            lambda tx: tx.one(
                f"{_DOCUMENT} WHERE d.generation = {_generation(generation)} AND d.document_id = ?", (document_id,)
            )
        )
        return _stored(row) if row is not None else None

    def find_document(self, name: str) -> StoredDocument | None:
        """Return the active document with this id, URI or key, or None."""
        row = self._read(
            lambda tx: tx.one(
                f"{_DOCUMENT} WHERE d.generation = {_generation(None)} AND (d.document_id = ? OR v.uri = ?)",
                (name, name),
            )
        )
        return _stored(row) if row is not None else None

    def documents(self, *, generation: int | None = None) -> Iterator[StoredDocument]:
        """Return all published documents in the order of their ids."""
        after = ""
        while True:
            rows = self._read(
                lambda tx, after=after: tx.all(  # type: ignore[misc]
                    f"""{_DOCUMENT} WHERE d.generation = {_generation(generation)} AND d.document_id > ?
                    ORDER BY d.document_id LIMIT {_PAGE}""",
                    (after,),
                )
            )
            yield from map(_stored, rows)
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    def list_documents(
        self, text: str = "", *, only: DocumentFilter | None = None, after: str = "", limit: int = 50
    ) -> list[StoredDocument]:
        """Return active documents in the order of their URIs, from the one after the URI `after`.

        `text` is a part of the URI or title, in any case.
        """
        condition, values = (only or DocumentFilter()).condition()
        if text:
            condition += " AND (lower(v.uri) LIKE ? ESCAPE '!' OR lower(t.title) LIKE ? ESCAPE '!')"
            escaped = text.lower().replace("!", "!!").replace("%", "!%").replace("_", "!_")
            values += [f"%{escaped}%"] * 2
        rows = self._read(
            lambda tx: tx.all(
                f"""{_DOCUMENT} WHERE d.generation = {_generation(None)} AND v.uri > ? {condition}
                ORDER BY v.uri LIMIT ?""",
                (after, *values, limit),
            )
        )
        return [_stored(row) for row in rows]

    def set_roots(self, roots: Mapping[str, str]) -> None:
        """Record the folder that each document comes from: document id to URI."""

        def work(tx: Transaction) -> None:
            tx.many(
                """INSERT INTO document_roots (document_id, root) VALUES (?, ?)
                ON CONFLICT (document_id) DO UPDATE SET root = excluded.root WHERE document_roots.root <> excluded.root""",
                sorted(roots.items()),
            )

        self._write(work)


def _generation(number: int | None) -> str:
    return "(SELECT generation FROM active_generation)" if number is None else str(int(number))


def _stored(row: Row) -> StoredDocument:
    values: list[Any] = list(row)
    values[12] = tuple(json.loads(values[12]))
    return StoredDocument(*values)
