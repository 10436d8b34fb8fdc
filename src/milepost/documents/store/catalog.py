"""Lists of published documents, and the folders they came from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from milepost.core.errors import InvalidInputError
from milepost.documents.store.database import Row, SqlStoreBase, Transaction, placeholders
from milepost.documents.store.filters import DocumentFilter, refuse_nul
from milepost.documents.store.records import Origins, StoredDocument

_DOCUMENT: Final = """
    SELECT d.document_id, v.uri, t.title, t.format, v.size, v.content_hash, v.fingerprint, v.text_id,
           v.version_id, t.characters, t.pages, t.failed_pages, t.warnings, v.chunk_count, v.truncated, d.ingested_at,
           coalesce(r.root, ''), coalesce(o.owner, '')
    FROM documents d
    JOIN versions v ON v.version_id = d.version_id
    JOIN texts t ON t.text_id = v.text_id
    LEFT JOIN document_roots r ON r.document_id = d.document_id
    LEFT JOIN document_owners o ON o.document_id = d.document_id
"""
_PAGE: Final = 200


class CatalogQueries(SqlStoreBase):
    """List and look up documents."""

    def document(
        self, document_id: str, *, generation: int | None = None, owner: str | None = None
    ) -> StoredDocument | None:
        """Return a published document of the active or the given generation, or None. With `owner` only a document of it."""
        refuse_nul("document", document_id)
        condition, values = DocumentFilter(owner=owner).condition()
        found = self._stored(
            f"d.generation = {_generation(generation)} AND d.document_id = ? {condition}", (document_id, *values)
        )
        return found[0] if found else None

    def find_document(self, name: str, *, owner: str | None = None) -> StoredDocument | None:
        """Return the active document with this id, URI or key, or None. With `owner` only a document of it.

        Raises `InvalidInputError` if several owners have documents of this URI or key.
        """
        if (named := self.document(name, owner=owner)) is not None:
            return named
        condition, values = DocumentFilter(owner=owner).condition()
        found = self._stored(f"d.generation = {_generation(None)} AND v.uri = ? {condition} LIMIT 2", (name, *values))
        if len(found) > 1:
            raise InvalidInputError("name", f"several owners have {name!r}; give the id of the document, or its owner")
        return found[0] if found else None

    def documents(self, *, generation: int | None = None) -> Iterator[StoredDocument]:
        """Return all published documents in the order of their ids."""
        after = ""
        while True:
            page = self._stored(
                f"d.generation = {_generation(generation)} AND d.document_id > ? ORDER BY d.document_id LIMIT {_PAGE}",
                (after,),
            )
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].document_id

    def list_documents(
        self, text: str = "", *, only: DocumentFilter | None = None, after: str = "", limit: int = 50
    ) -> list[StoredDocument]:
        """Return active documents in the order of their URIs, from the one after the URI or document id `after`.

        `text` is a part of the URI or title, in any case. Give an id if several owners have documents of the same URI.
        """
        refuse_nul("text", text)
        refuse_nul("after", after)
        condition, values = (only or DocumentFilter()).condition()
        if text:
            condition += " AND (lower(v.uri) LIKE ? ESCAPE '!' OR lower(t.title) LIKE ? ESCAPE '!')"
            escaped = text.lower().replace("!", "!!").replace("%", "!%").replace("_", "!_")
            values += [f"%{escaped}%"] * 2
        last = self.document(after) if after else None
        position: tuple[str, ...] = (after,) if last is None else (last.uri, last.document_id)
        columns = ("v.uri", "d.document_id")[: len(position)]
        return self._stored(
            f"""d.generation = {_generation(None)} AND ({", ".join(columns)}) > ({placeholders(len(columns))}) {condition}
            ORDER BY v.uri, d.document_id LIMIT ?""",
            (*position, *values, limit),
        )

    def record_origins(self, origins: Origins) -> set[str]:
        """Record where published documents come from. Return the ids of those of `origins` that are not published."""

        def work(tx: Transaction) -> set[str]:
            ids = sorted(origins.roots)
            published: set[str] = set()
            for start in range(0, len(ids), _PAGE):
                some = ids[start : start + _PAGE]
                rows = tx.all(
                    f"SELECT document_id FROM documents WHERE document_id IN ({placeholders(len(some))})", some
                )
                published.update(row[0] for row in rows)
            write_origins(tx, origins, published)
            return set(ids) - published

        return self._write(work)

    def _stored(self, condition: str, values: Sequence[Any]) -> list[StoredDocument]:
        """Return the documents that match a condition, with their metadata."""

        def work(tx: Transaction) -> tuple[list[Row], dict[str, dict[str, str]]]:
            rows = tx.all(f"{_DOCUMENT} WHERE {condition}", values)
            metadata: dict[str, dict[str, str]] = {}
            for start in range(0, len(rows), _PAGE):
                ids = [row[0] for row in rows[start : start + _PAGE]]
                for document_id, name, value in tx.all(
                    f"""SELECT document_id, name, value FROM document_metadata
                    WHERE document_id IN ({placeholders(len(ids))}) ORDER BY name""",
                    ids,
                ):
                    metadata.setdefault(document_id, {})[name] = value
            return rows, metadata

        rows, metadata = self._read(work)
        found: list[list[Any]] = [
            [*row[:12], tuple(json.loads(row[12])), *row[13:], metadata.get(row[0], {})] for row in rows
        ]
        return [StoredDocument(*fields) for fields in found]


def _generation(number: int | None) -> str:
    return "(SELECT generation FROM active_generation)" if number is None else str(int(number))


def write_origins(tx: Transaction, origins: Origins, document_ids: Iterable[str]) -> None:
    """Write the folder, owner and metadata of these documents. An owner is never replaced, and metadata of other names are kept."""
    ids = sorted(document_ids)
    tx.many(
        """INSERT INTO document_roots (document_id, root) VALUES (?, ?)
        ON CONFLICT (document_id) DO UPDATE SET root = excluded.root WHERE document_roots.root <> excluded.root""",
        [(one, origins.roots[one]) for one in ids],
    )
    if origins.owner:
        tx.many(
            "INSERT INTO document_owners (document_id, owner) VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(one, origins.owner) for one in ids],
        )
    tx.many(
        """INSERT INTO document_metadata (document_id, name, value) VALUES (?, ?, ?)
        ON CONFLICT (document_id, name) DO UPDATE SET value = excluded.value""",
        [(one, name, value) for one in ids for name, value in origins.metadata.items()],
    )
