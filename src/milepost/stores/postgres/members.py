"""The groups of the jobs of a batch: who is a member, which members are open, and how the others ended.

Nothing of this is locked except that a member that a job waits for is not removed meanwhile. Two transactions may therefore
each miss what the other does, so the groups of both are looked at again after their commits, see `Batch.groups_to_check`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from milepost.core.placement import AFTER, after_groups, awaited_groups, groups_of, memberships
from milepost.core.serialization import US
from milepost.core.transitions.change import Change, DrainingLease, Part, TransitionType
from milepost.core.transitions.table import TERMINAL
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Part as Statement
from milepost.stores.postgres.database import for_rows

_JOB = "job:"


def groups_in(change: Change) -> set[str]:
    """Return the groups that a change makes its record wait for."""
    found: set[str] = set()
    for name, source in _sources(change.transition):
        text = change.values[source] if isinstance(source, int) else getattr(source, "text", None)
        if text:
            found.update(after_groups(text) if name == "labels" else text.split(US))
    return found


@lru_cache(maxsize=1024)
def _sources(transition: TransitionType) -> tuple[tuple[str, Part], ...]:
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

    def _move(self, job_id: str, before: Mapping[str, str] | None, after: Mapping[str, str] | None) -> None:
        """Take the new record of a job."""
        for group, _ in memberships(before or {}):
            self._own[group].pop(job_id, None)
        for group, ended in memberships(after or {}):
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
