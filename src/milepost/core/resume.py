"""What the next run of a job repeats, and where its loops continue, as far as the record tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from milepost.core.serialization import from_json
from milepost.core.values import LargeValue

Cursors = Mapping[str, Mapping[str, Any]]

KEPT = ("cursors", "state")
"""The fields with the cursors of loops: without and with a state."""
INNER = "]/"
"""What the name of a loop inside an item of another loop contains."""


def repeated(record: Mapping[str, str]) -> str:
    """Return what the code of a job repeats in its next run: ``nothing``, ``rest``, ``checkpoint``, ``steps`` or ``all``."""
    if "started" not in record and "runs" not in record:
        return "nothing"
    if _is_apart(record) or continues_loops(_cursors(record)):
        return "rest"
    return "checkpoint" if record.get("checkpoint") else "steps" if record.get("steps") else "all"


def continues_loops(cursors: Cursors) -> bool:
    """Return whether one of the kept cursors of loops is a position. That of a plain loop says only how far it was."""
    return any("n" in cursor for cursor in cursors.values())


def unfinished_loop(record: Mapping[str, str]) -> tuple[str, int, int | None] | None:
    """Return the name of the loop that continues in the next run, how many items it has done, and of how many.

    None if the record does not tell: there is none, there are several, or the cursors are large.
    """
    if _is_apart(record):
        return None
    found = [
        (name, cursor["n"], cursor.get("of"))
        for name, cursor in _cursors(record).items()
        if isinstance(cursor.get("n"), int) and INNER not in name and not _is_over(cursor)
    ]
    return found[0] if len(found) == 1 else None


def _is_over(cursor: Mapping[str, Any]) -> bool:
    return bool(cursor.get("end")) or cursor["n"] == cursor.get("of")


def _is_apart(record: Mapping[str, str]) -> bool:
    """Return whether cursors are stored apart, because they are large; those of a plain loop never are."""
    return any(LargeValue.read(record.get(name, "")) is not None for name in KEPT)


def _cursors(record: Mapping[str, str]) -> Cursors:
    found: dict[str, Any] = {}
    for name in KEPT:
        try:
            kept = from_json(record.get(name) or "{}")
        except ValueError:
            continue  # damaged
        if isinstance(kept, dict):
            found |= {loop: cursor for loop, cursor in kept.items() if isinstance(cursor, dict)}
    return found
