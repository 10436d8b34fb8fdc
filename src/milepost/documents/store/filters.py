"""Which documents a list or a search is about, as SQL."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from milepost.core.errors import InvalidInputError
from milepost.documents.errors import printable_name
from milepost.documents.store.database import Entries, placeholders

MetadataValue: TypeAlias = str | int | float | bool
Where: TypeAlias = Mapping[str, MetadataValue | Sequence[MetadataValue]]
_MAX_NAMES, _MAX_NAME, _MAX_VALUE = 32, 100, 1000
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
    `since` is the earliest time of ingestion, in ISO 8601; without a time zone it is UTC. `where` are values of metadata by
    name; of several values any matches. `owner` is the value of the owner label.
    """

    under: str | None = None
    format: str | None = None
    since: str | None = None
    where: Where | None = None
    owner: str | None = None

    def condition(self) -> tuple[str, list[Any]]:
        """Return an SQL condition that begins with AND, or is empty, and its values.

        It is about the rows `d` of documents, `v` of versions and `t` of texts. Raises InvalidInputError.
        """
        for field in ("under", "format", "owner"):
            refuse_nul(field, getattr(self, field))
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
        for name, wanted in (self.where or {}).items():
            texts = [metadata_text(one) for one in ([wanted] if isinstance(wanted, str | int | float) else wanted)]
            refuse_nul("where", name, *texts)
            sql += f""" AND EXISTS (SELECT 1 FROM document_metadata m WHERE m.document_id = d.document_id
                AND m.name = ? AND m.value IN ({placeholders(len(texts))}))"""
            values += [name, *texts]
        if self.owner is not None:
            sql += " AND EXISTS (SELECT 1 FROM document_owners o WHERE o.document_id = d.document_id AND o.owner = ?)"
            values.append(self.owner)
        return sql, values

    def entries(self, generation: int) -> Entries:
        """Return the entries of a generation whose documents match."""
        sql, values = self.condition()
        if not sql:
            return Entries(generation)
        return Entries(generation, _ENTRIES.format(condition=sql), (generation, *values))


def refuse_nul(field: str, *texts: str | None) -> None:
    """Raise InvalidInputError for a NUL character, which PostgreSQL cannot store or compare."""
    if any(text is not None and "\0" in text for text in texts):
        raise InvalidInputError(field, "contains a NUL character; remove it")


def metadata_text(value: MetadataValue) -> str:
    """Return a value of metadata as it is stored: a text as it is, a number or boolean as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def parsed_where(conditions: Iterable[str]) -> dict[str, list[MetadataValue]]:
    """Return conditions ``NAME=VALUE`` as `where` of a filter. Of several values of a name any matches.

    Raises InvalidInputError.
    """
    found: dict[str, list[MetadataValue]] = {}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not name or not equals:
            raise InvalidInputError("where", f"{condition!r:.60} must be NAME=VALUE, such as team=engines")
        found.setdefault(name, []).append(value)
    if len(found) > _MAX_NAMES:
        raise InvalidInputError("where", f"{len(found)} names exceed the limit of {_MAX_NAMES}")
    return found


def checked_metadata(given: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata as it is stored. Raises InvalidInputError."""
    if len(given) > _MAX_NAMES:
        raise InvalidInputError("metadata", f"{len(given)} names exceed the limit of {_MAX_NAMES}")
    found = {}
    for name, value in given.items():
        if not isinstance(value, str | int | float | bool):
            raise InvalidInputError(f"metadata.{name:.40}", f"must be text, a number or a boolean, not {value!r:.40}")
        if not name or "=" in name or len(name) > _MAX_NAME or len(metadata_text(value)) > _MAX_VALUE:
            raise InvalidInputError(
                f"metadata.{name:.40}",
                f"the name must have 1 to {_MAX_NAME} characters and no equals sign, the value at most {_MAX_VALUE:,}",
            )
        refuse_nul(f"metadata.{printable_name(name):.40}", name, metadata_text(value))
        found[name] = metadata_text(value)
    return found


def _time(text: str) -> str:
    """Return a time as `documents.ingested_at` has it, which sorts as text."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError("since", f"{text!r:.40} is not a date or time such as 2026-05-31T12:00Z") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
