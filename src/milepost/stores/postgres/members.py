"""The members of groups outside a batch: which are open, and how the others ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from milepost.core.placement import after_groups, awaited_groups
from milepost.core.serialization import US
from milepost.core.transitions.operations import Change, Part, TransitionType
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Part as Statement

_JOB = "job:"


def group_of(job_id: str) -> str:
    """Return the group whose only member is this job."""
    return _JOB + job_id


def member_of(group: str) -> str | None:
    """Return the id of the only member of a group, or None if it is of another kind."""
    return group[len(_JOB) :] if group.startswith(_JOB) else None


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
    """What was read of members of groups."""

    def __init__(self) -> None:
        self._groups: set[str] = set()
        self._ended: dict[str, tuple[str, bool]] = {}
        self._stopping: set[str] = set()
        self._removed: dict[str, dict[str, str]] = defaultdict(dict)

    def ask(self, groups: Iterable[str]) -> list[Statement]:
        """Return the statements that read these groups, none if all are known."""
        wanted = sorted(set(groups) - self._groups)
        if not wanted:
            return []
        self._groups.update(wanted)
        members = [member for group in wanted if (member := member_of(group)) is not None]
        return [
            ("members", {"members": members}),
            ("stopping_members", {"members": members}),
            ("removed_members", {"groups": wanted}),
        ]

    def know(self, members: Rows, stopping: Rows, removed: Rows) -> None:
        """Take the rows of these statements."""
        self._ended |= {job_id: (status, ended) for job_id, status, ended in members}
        self._stopping |= {job_id for (job_id,) in stopping}
        for group, status, job_id in removed:
            self._removed[group][status] = job_id

    def exists(self, job_id: str) -> bool:
        """Return whether an id has a record."""
        return job_id in self._ended

    def is_open(self, job_id: str) -> bool:
        """Return whether a job has not ended, or its code is still stopping."""
        return job_id in self._stopping or not self._ended.get(job_id, ("", True))[1]

    def ended_in(self, job_id: str, statuses: Collection[str]) -> bool:
        """Return whether a job ended in one of these statuses."""
        status, ended = self._ended.get(job_id, ("", False))
        return ended and status in statuses

    def removed_in(self, group: str, statuses: Collection[str]) -> str | None:
        """Return the id of a member that was removed in one of these statuses, or None."""
        return next((self._removed[group][status] for status in statuses if status in self._removed[group]), None)
