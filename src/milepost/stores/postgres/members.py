"""What guards of a batch ask about other records: the groups of its jobs, parents, and batches to join.

Of a group it knows who is a member, which members are open, and how the others ended.

Nothing of a group is locked except that a member that a job waits for is not removed meanwhile. Two transactions may therefore
each miss what the other does, so the groups of both are looked at again after their commits, see `Batch.groups_to_check`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from milepost.core.placement import (
    AFTER,
    after_groups,
    awaited_groups,
    groups_joined,
    groups_of,
    memberships,
    parent_of,
)
from milepost.core.serialization import US
from milepost.core.transitions.change import Change, DrainingLease, Part, TransitionType
from milepost.core.transitions.table import COMPLETED, TERMINAL
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Part as Statement
from milepost.stores.postgres.database import for_rows
from milepost.stores.rows import Row

_JOB = "job:"


def groups_in(change: Change) -> set[str]:
    """Return the groups that a change makes its record wait for."""
    found: set[str] = set()
    for name, source in _named_groups(change.transition):
        text = change.values[source] if isinstance(source, int) else getattr(source, "text", None)
        if text:
            found.update(after_groups(text) if name == "labels" else text.split(US))
    return found


@lru_cache(maxsize=1024)
def _named_groups(transition: TransitionType) -> tuple[tuple[str, Part], ...]:
    """Return the sources of the fields that name groups."""
    ops = [op for branch in transition.branches for op in branch.ops]
    return tuple((str(op[1]), op[2]) for op in ops if op[0] == "set" and op[1] in ("labels", "wait_groups", "held"))


def groups_for(record: Mapping[str, str] | None) -> set[str]:
    """Return the groups that a record waits for."""
    return set(awaited_groups(record)) if record is not None else set()


class OutsideMembers:
    """What was read of members that are not in the batch, whose ids are `ids`."""

    def __init__(self, ids: Collection[str] = ()) -> None:
        self._ids = list(ids)
        self._groups: set[str] = set()
        self._jobs: dict[str, tuple[str, bool]] = {}
        self._stopping: set[str] = set()
        self._known: set[str] = set()
        self._open: set[str] = set()
        self._ended: dict[str, dict[str, str]] = defaultdict(dict)
        self.records: dict[str, Mapping[str, str]] = {}
        """Those of members that did not complete. They are not locked: only an error text is made of them."""

    def ask(self, groups: Iterable[str]) -> list[Statement]:
        """Return the statements that read these groups, none if all are known."""
        wanted = sorted(set(groups) - self._groups)
        if not wanted:
            return []
        self._groups.update(wanted)
        several = [group for group in wanted if not group.startswith(_JOB)]
        jobs = [group.partition(":")[2] for group in wanted if not group.startswith("group:")]
        ended = {"groups": several, "ids": self._ids, "statuses": list(TERMINAL)}
        return [
            ("members", {"members": jobs}),
            ("stopping_members", {"members": jobs}),
            ("group_members", ended),
            ("removed_members", {"groups": wanted}),
        ]

    def know(self, jobs: Rows, stopping: Rows, several: Rows, removed: Rows) -> None:
        """Take the rows of these statements."""
        self._jobs |= {job_id: (status, ended) for job_id, status, ended in jobs}
        self._stopping |= {job_id for (job_id,) in stopping}
        for group, is_known, is_open, ended in several:
            if is_known:
                self._known.add(group)
            if is_open:
                self._open.add(group)
            self._ended[group] |= {status: i for status, i in zip(TERMINAL, ended, strict=True) if i is not None}
        for group, status, job_id in removed:
            self._ended[group].setdefault(status, job_id)

    def ask_ends(self) -> list[Statement]:
        """Return the statement that reads the records of the members that `ended_in` may name, none if there are none."""
        ids = {job_id for job_id, (status, ended) in self._jobs.items() if ended and status != COMPLETED}
        ids.update(job_id for ends in self._ended.values() for status, job_id in ends.items() if status != COMPLETED)
        return [("others", {"ids": sorted(ids)})] if ids else []

    def know_ends(self, found: Rows) -> None:
        """Take the rows of this statement."""
        rows = [Row(*one[:-1]) for one in found]
        self.records |= {row.id: row.record() for row in rows}

    def knows(self, group: str) -> bool:
        """Return whether the job of a group has a record, or a record is in it."""
        kind, _, name = group.partition(":")
        return group in self._known if kind == "group" else name in self._jobs

    def is_open(self, group: str) -> bool:
        """Return whether a member has not ended, or its code is still stopping."""
        job_id = group.removeprefix(_JOB)
        if job_id == group:
            return group in self._open
        return job_id in self._stopping or not self._jobs.get(job_id, ("", True))[1]

    def ended_in(self, group: str, statuses: Collection[str]) -> str | None:
        """Return the id of a member that ended, or was removed, in one of these statuses; None if there is none."""
        job_id = group.removeprefix(_JOB)
        status, ended = self._jobs.get(job_id, ("", False)) if job_id != group else ("", False)
        if ended and status in statuses:
            return job_id
        return next((self._ended[group][one] for one in statuses if one in self._ended[group]), None)


class GroupFacts:
    """The groups as the records of a batch change them."""

    def __init__(self, members: OutsideMembers) -> None:
        self.members = members
        self.groups_to_check: set[str] = set()
        """Groups that may be closed while jobs wait for them: to be looked at after the commit."""
        self._draining: dict[str, DrainingLease | None] = {}
        self._records: dict[str, dict[str, str] | None] = {}
        self._own: dict[str, dict[str, str]] = defaultdict(dict)
        self._removed_ends: dict[tuple[str, str], str] = {}

    def knows(self, group: str) -> bool:
        kind, _, name = group.partition(":")
        if kind == "group":
            return bool(self._own[group]) or self.members.knows(group)
        return self._records[name] is not None if name in self._records else self.members.knows(group)

    def is_open(self, group: str) -> bool:
        job_id = group.removeprefix(_JOB)
        if job_id == group:
            return (
                self.members.is_open(group)
                or "" in self._own[group].values()
                or any(stop and group in stop.groups.split(US) for stop in self._draining.values())
            )
        if job_id not in self._records:
            return self.members.is_open(group)
        record = self._records[job_id]
        return (record is not None and "completed" not in record) or self._draining.get(job_id) is not None

    def ended_in(self, group: str, statuses: Collection[str]) -> str | None:
        job_id = group.removeprefix(_JOB)
        record = self._records.get(job_id) if job_id != group else None
        if record is not None and "completed" in record and record["status"] in statuses:
            return job_id
        if (own := min((i for i, ended in self._own[group].items() if ended in statuses), default=None)) is not None:
            return own
        gone = next((self._removed_ends[group, one] for one in statuses if (group, one) in self._removed_ends), None)
        return gone or self.members.ended_in(group, statuses)

    def ended(self, job_id: str) -> Mapping[str, str] | None:
        return self._records[job_id] if job_id in self._records else self.members.records.get(job_id)

    def _move(self, job_id: str, before: Mapping[str, str] | None, after: Mapping[str, str] | None) -> None:
        """Take the new record of a job."""
        if before is not None and "labels" in before:
            for group, _ in memberships(before):
                self._own[group].pop(job_id, None)
        if after is not None and "labels" in after:
            for group, ended in memberships(after):
                self._own[group][job_id] = ended
        if before is not None and after is None:
            for group in groups_of(job_id, before):
                self._removed_ends[group, before["status"]] = job_id

    def _removals(self, unnamed: set[str]) -> Iterable[Statement]:
        """Return the statements that keep the ends of removed members, and forget those that are not needed any more.

        The group of a removed batch has the id of that as its name.
        """
        rows = sorted((*end, job_id) for end, job_id in self._removed_ends.items())
        yield from for_rows("removed_members_put", "groups statuses ids", rows)
        groups = {pair.removeprefix(AFTER) for pair in unnamed if pair.startswith(AFTER)}
        groups |= {group for (group, _), job_id in self._removed_ends.items() if group == f"group:{job_id}"}
        if groups:
            yield "removed_members_delete", {"groups": sorted(groups)}


def others_in(change: Change) -> set[str]:
    """Return the ids that the guards of a change name."""
    found: set[str] = set()
    for is_name, source in _named_ids(change.transition):
        text = change.values[source]
        if text:
            found.update([text] if is_name else groups_joined(text))
    return found


@lru_cache(maxsize=1024)
def _named_ids(transition: TransitionType) -> tuple[tuple[bool, int], ...]:
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
