"""Records and events as one text of ``field=value`` lines, with short field names. Owns the short names; knows no store.

Values never hold a newline (the encoders of `encoding` see to that), so nothing needs escaping. Unknown fields keep
their long names and are carried along: a record keeps the fields that a later release has written.
"""

from __future__ import annotations

from collections.abc import Mapping

SHORT: dict[str, str] = {
    "type": "t",
    "status": "s",
    "progress": "p",
    "message": "m",
    "created": "c",
    "started": "b",
    "completed": "z",
    "error": "e",
    "result": "r",
    "metadata": "d",
    "driver": "D",
    "params": "P",
    "labels": "l",
    "priority": "y",
    "attempt": "a",
    "max_attempts": "A",
    "budget": "B",
    "crashes": "x",
    "max_crashes": "X",
    "updated": "u",
    "version": "v",
    "worker": "w",
    "lease": "L",
    "token": "T",
    "born": "O",
    "ops": "o",
    "queue": "q",
    "slot": "S",
    "unique_key": "k",
    "stages": "g",
    "item_counts": "i",
    "eta": "E",
    "checkpoint": "C",
    "checkpoint_at": "h",
    "cursors": "K",
    "failure": "f",
    "attempts": "F",
    "attempts_before": "G",
    "not_before": "n",
    "not_after": "N",
    "trace": "W",
}
LONG: dict[str, str] = {short: name for name, short in SHORT.items()}


def short(name: str) -> str:
    """The name under which a field is stored. One that would pass for a short name, or for an event's, gets a dot."""
    return SHORT.get(name) or (f".{name}" if name in LONG or name[:1] in (".", "!") else name)


def long(stored: str) -> str:
    """The field's name of a stored one."""
    return LONG.get(stored) or stored.removeprefix(".")


def pack(fields: Mapping[str, str]) -> str:
    """Write fields as lines, by their short names."""
    return "\n".join(f"{short(name)}={value}" for name, value in fields.items())


def unpack_record(stored: str | bytes) -> dict[str, str]:
    """Read a record as a store keeps it. At rest it may be followed by its events, in lines that begin with ``!``, and it
    leaves out `updated` when that is the time of its end. What is not UTF-8 (a damaged record) is replaced.
    """
    text = stored if isinstance(stored, str) else stored.decode("utf-8", "replace")
    fields = unpack(text.partition("\n!")[0])
    if "updated" not in fields and "completed" in fields:
        fields["updated"] = fields["completed"]
    return fields


def unpack(text: str) -> dict[str, str]:
    """Read what `pack` wrote; a line without ``=`` (a damaged record) is skipped."""
    fields = {}
    for line in text.split("\n"):
        stored, separator, value = line.partition("=")
        if separator:
            fields[LONG.get(stored) or stored.removeprefix(".")] = value
    return fields
