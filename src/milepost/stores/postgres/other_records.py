"""The records that guards of a batch ask about, beside those that it changes: parents, and batches to join."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from milepost.core.placement import groups_joined, parent_of
from milepost.core.transitions.change import Change, TransitionType
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Part as Statement
from milepost.stores.rows import Row


def others_in(change: Change) -> set[str]:
    """Return the ids that the guards of a change name."""
    found: set[str] = set()
    for is_name, source in _sources(change.transition):
        text = change.values[source]
        if text:
            found.update([text] if is_name else groups_joined(text))
    return found


def asks_for_parent(change: Change) -> bool:
    """Return whether a guard of a change asks for the parent of the record."""
    return any(guard[0] in ("orphan", "parented") for branch in change.transition.branches for guard in branch.guards)


@lru_cache(maxsize=1024)
def _sources(transition: TransitionType) -> tuple[tuple[bool, int], ...]:
    """Return the positions of ids (True), and of labels that name groups."""
    guards = {guard for branch in transition.branches for guard in branch.guards}
    ids = [guard[-2] for guard in guards if guard[0] in ("leased", "joinable")]
    labels = [guard[1] for guard in guards if guard[0] == "joinable"]
    places = [*((True, one) for one in ids), *((False, one) for one in labels)]
    return tuple((is_id, one) for is_id, one in places if isinstance(one, int))


def parents_of(records: Iterable[Mapping[str, str] | None]) -> set[str]:
    """Return the ids of the parents of records that were made by runs."""
    return {parent_of(record) for record in records if record is not None and "child_key" in record}


class OtherRecords:
    """What was read of other records."""

    def __init__(self) -> None:
        self._records: dict[str, Mapping[str, str] | None] = {}

    def ask(self, job_ids: Iterable[str], *, waits: bool = True) -> list[Statement]:
        """Return the statements that lock these records against changes and read them, none if all are known.

        Without `waits`, those that another transaction has locked are read as missing.
        """
        wanted = sorted(set(job_ids) - self._records.keys())
        self._records |= dict.fromkeys(wanted)
        lock = "lock_others" if waits else "lock_free_others"
        return [(lock, {"ids": wanted}), ("others", {"ids": wanted})] if wanted else []

    def know(self, locked: Rows, found: Rows) -> None:
        """Take the rows of these statements. What is not locked may change, or was created since the lock: it is missing."""
        rows = [Row(*one[:-1]) for one in found]
        self._records |= {row.id: row.record() for row in rows if (row.id,) in locked}

    def get(self, job_id: str) -> Mapping[str, str] | None:
        """Return the record of an id, or None."""
        return self._records.get(job_id)
