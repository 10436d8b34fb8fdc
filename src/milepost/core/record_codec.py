"""Encode records and events as ``field=value`` lines with short field names.

Values never contain a newline (`serialization` ensures that), so nothing is escaped. Unknown fields keep their long
names: a record keeps the fields that a later release has written.
"""

from __future__ import annotations

from collections.abc import Mapping

from milepost.core.record import FIELDS

SHORT: dict[str, str] = {one.key: one.short for one in FIELDS if one.short}
LONG: dict[str, str] = {short: name for name, short in SHORT.items()}


def short_name(name: str) -> str:
    """Return the stored name of a field. A name that could be taken for a short name or an event gets a leading dot."""
    return SHORT.get(name) or (f".{name}" if name in LONG or name[:1] in (".", "!") else name)


def pack(fields: Mapping[str, str]) -> str:
    """Return fields as lines, with their short names."""
    return "\n".join(f"{short_name(name)}={value}" for name, value in fields.items())


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
