"""Encode records and events as ``field=value`` lines with short field names, and set large values apart.

Values never contain a newline (`serialization` ensures that), so nothing is escaped. Unknown fields keep their long
names: a record keeps the fields that a later release has written.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from milepost.core.record import FIELDS
from milepost.core.values import LARGE_MARK

if TYPE_CHECKING:
    from milepost.core.transitions.change import Change, TransitionType


SHORT: dict[str, str] = {one.key: one.short for one in FIELDS if one.short}
LONG: dict[str, str] = {short: name for name, short in SHORT.items()}


def short_name(name: str) -> str:
    """Return the stored name of a field. A name that could be taken for a short name or an event gets a leading dot."""
    return SHORT.get(name) or (f".{name}" if name in LONG or name[:1] in (".", "!") else name)


def pack(fields: Mapping[str, str]) -> str:
    """Return fields as lines, with their short names."""
    return _lines(tuple(fields)) % tuple(fields.values())


@lru_cache(maxsize=1024)
def _lines(names: tuple[str, ...]) -> str:
    """Return the lines of these fields, with ``%s`` in place of the values. Most records have the fields of many others."""
    return "\n".join(f"{short_name(name).replace('%', '%%')}=%s" for name in names)


def unpack_record(stored: str | bytes) -> dict[str, str]:
    """Return the fields of a stored record.

    The record of an ended job may be followed by its events, in lines that begin with ``!``, and omits `updated` when
    that equals `completed`. Bytes that are not UTF-8 (a damaged record) are replaced.
    """
    text = stored if isinstance(stored, str) else stored.decode("utf-8", "replace")
    fields = unpack(text.partition("\n!")[0])
    if "updated" not in fields and "completed" in fields:
        fields["updated"] = fields["completed"]
    return fields


def unpack(text: str) -> dict[str, str]:
    """Return the fields that `pack` wrote; a line without ``=`` (a damaged record) is skipped."""
    fields = {}
    for line in text.split("\n"):
        stored, separator, value = line.partition("=")
        if separator:
            fields[LONG.get(stored) or stored.removeprefix(".")] = value
    return fields


RESULTS = "results/"
"""The keys of kept results of `run.map` in the key-value store are ``results/{job_id}/...``."""

LARGE = frozenset(one.key for one in FIELDS if one.large)
"""The stored names of the fields whose large values a store keeps beside their record."""

LARGE_BYTES = 64 * 1024
"""The largest value, in bytes of UTF-8, that stays in its record."""


def results_prefix(job_id: str) -> str:
    """Return how the keys of a job's kept results begin. A store deletes these values in the step that removes the record."""
    return f"{RESULTS}{job_id}/"


def large_fields(record: Mapping[str, str]) -> list[str]:
    """Return the names of the fields that hold a marker."""
    return [name for name in LARGE if name in record and record[name][:1] == LARGE_MARK]


def set_apart(change: Change, record: dict[str, str], before: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Replace the large values of a new record by markers. Return those values, and the names of those that are gone.

    `before` is the record before the change, empty if there was none. Raises ValueError for a lone surrogate.
    """
    kept: dict[str, str] = {}
    gone: list[str] = []
    for name in _written(change.transition):
        value, old = record.get(name), before.get(name)
        if value is old:
            continue
        if value is not None and len(value) * 4 > LARGE_BYTES and (size := len(value.encode())) > LARGE_BYTES:
            kept[name], record[name] = value, f"{LARGE_MARK}{size}"
        elif old is not None and old[:1] == LARGE_MARK:
            gone.append(name)
    return kept, gone


@lru_cache(maxsize=1024)
def _written(transition: TransitionType) -> tuple[str, ...]:
    names = {str(op[1]) for branch in transition.branches for op in branch.ops if op[0] in ("set", "clear")}
    return tuple(sorted(names & LARGE))
