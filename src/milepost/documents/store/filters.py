"""Which documents a list or a search is about, as SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from milepost.core.errors import InvalidInputError
from milepost.documents.store.database import Entries

_ENTRIES: Final = """
    SELECT number FROM index_entries WHERE version_id IN (
        SELECT d.version_id FROM documents d
        JOIN versions v ON v.version_id = d.version_id
        JOIN texts t ON t.text_id = v.text_id
        WHERE d.generation = ? {condition})
"""


@dataclass(frozen=True, slots=True)
class DocumentFilter:
    """Conditions on documents; None matches all.

    `under` is the URI of a folder or a document, or the beginning of keys up to a slash. `format` is a name such as `pdf`.
    `since` is the earliest time of ingestion, in ISO 8601; without a time zone it is UTC.
    """

    under: str | None = None
    format: str | None = None
    since: str | None = None

    def condition(self) -> tuple[str, list[Any]]:
        """Return an SQL condition that begins with AND, or is empty, and its values.

        It is about the rows `d` of documents, `v` of versions and `t` of texts. Raises InvalidInputError.
        """
        sql, values = "", list[Any]()
        if self.under:
            folder = self.under.rstrip("/")
            sql += " AND (v.uri = ? OR substr(v.uri, 1, ?) = ?)"
            values += [folder, len(folder) + 1, f"{folder}/"]
        if self.format:
            sql += " AND t.format = ?"
            values.append(self.format)
        if self.since:
            sql += " AND d.ingested_at >= ?"
            values.append(_time(self.since))
        return sql, values

    def entries(self, generation: int) -> Entries:
        """Return the entries of a generation whose documents match."""
        sql, values = self.condition()
        if not sql:
            return Entries(generation)
        return Entries(generation, _ENTRIES.format(condition=sql), (generation, *values))


def _time(text: str) -> str:
    """Return a time as `documents.ingested_at` has it, which sorts as text."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError("since", f"{text!r:.40} is not a date or time such as 2026-05-31T12:00Z") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
