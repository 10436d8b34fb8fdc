"""When a record may start, as a pure function of its fields and of the groups that it waits for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Protocol

from milepost.core.serialization import US, from_micros
from milepost.core.values import WaitingFor

if TYPE_CHECKING:
    from milepost.core.job import Job

Record = Mapping[str, str]

AFTER = ":after="
"""The prefix of the labels that store `after`."""


USER = "user:"
"""What `held` begins with while a job waits for a user and not for the members of a group."""
PAUSED = "user:resume"
"""What `held` is while a job is paused."""
ANSWER = "user:answer:"
"""What it begins with while a suspended run waits for an answer; the key of its question follows."""

_MEMBERSHIPS = {":group": "group:", ":parent_id": "children:"}
"""The indexed field that makes a job a member of a group, as among the labels -> the kind of that group. Only a job that its
parent made (with `child_key`) is a member of ``children:ID``."""


class HasRecord(Protocol):
    """A job."""

    @property
    def record(self) -> Record:
        """Return the stored fields."""


class Members(Protocol):
    """What a store knows of the members of groups, at one instant.

    ``job:ID`` has that job as its only member, ``children:ID`` the jobs that its run made, and ``group:NAME`` those with
    that `group`.
    """

    def is_open(self, group: str) -> bool:
        """Return whether a member has not ended, or its code is still stopping."""

    def ended_in(self, group: str, statuses: Collection[str]) -> str | None:
        """Return the id of a member that ended, or was removed, in one of these statuses; None if there is none."""


def starts_at(record: Record) -> int | None:
    """Return the earliest start of a pending record in microseconds, 0 if it has none; None while it is held.

    A held record waits for a group of `after` or `wait_groups` that has an open member, or for an answer. A suspended one (`wait_groups`,
    `wake_at`) may start as soon as it is not held, or at `wake_at`, whichever comes first.
    """
    wake_at = record.get("wake_at")
    if "held" in record:
        return None if wake_at is None else int(wake_at)
    if "wait_groups" in record:
        return 0
    return int(record.get("not_before", 0) if wake_at is None else wake_at)


def earliest_start(record: Record) -> int:
    """Return when a job may start, or its task queue delivers its message, in microseconds; 0 for now."""
    return max(starts_at(record) or 0, int(record.get("message_at") or 0))


def later_start(record: Record, now: int) -> WaitingFor | None:
    """Return why a pending job starts later than `now`, in microseconds; None if it may start, or does not wait for a time."""
    start, wake_at = earliest_start(record), int(record.get("wake_at") or 0)
    if max(start, wake_at) <= now:
        return None
    code = "wakes_at" if wake_at > now else "retries_at" if int(record.get("attempt") or 0) else "starts_at"
    return WaitingFor(code, {"at": from_micros(max(start, wake_at)).isoformat()})


def is_waiting(job: HasRecord, now: int) -> bool:
    """Return whether a pending job waits for others, for an answer or, suspended, for a time, and so for no worker."""
    record = job.record
    if record.get("status") != "pending" or not ("held" in record or "suspended" in record):
        return False
    start = starts_at(record)
    return start is None or start > now


def _named(labels: str) -> list[str]:
    """Return the groups that the pairs of `group` and `parent_id` in the stored text of labels name."""
    if ":" not in labels:
        return []
    found = []
    for pair in labels.split(US):
        name, _, value = pair.partition("=")
        if name in _MEMBERSHIPS:
            found.append(_MEMBERSHIPS[name] + value)
    return found


def member_groups(record: Record) -> list[str]:
    """Return the groups of several members that a record belongs to."""
    labels = record.get("labels")
    groups = _named(labels) if labels else []
    if not groups or "child_key" in record:
        return groups
    return [group for group in groups if not group.startswith("children:")]


def groups_of(job_id: str, record: Record) -> list[str]:
    """Return the groups through which jobs may wait for a record: that of its id, and those of several members."""
    return [f"job:{job_id}", *member_groups(record)]


def groups_joined(labels: str) -> list[str]:
    """Return the names of the groups in the pairs of `group` in the stored text of labels."""
    return [group[6:] for group in _named(labels) if group.startswith("group:")]


def memberships(record: Record) -> set[tuple[str, str]]:
    """Return the groups of a record, each with the status in which it ended; empty while it is an open member.

    A closed batch is no open member of its own group any more, and does not fail it.
    """
    groups = member_groups(record)
    if not groups:
        return set()
    ended = "closed" if "closed" in record else record["status"] if "completed" in record else ""
    return {(group, ended) for group in groups}


BATCH = "batch"


def is_batch(job: Job) -> bool:
    """Return whether a job is the record of a batch: nothing runs it, and it is a member of its own group."""
    record = job.record
    return record.get("type") == BATCH and record.get("run_by") == "manual" and job.group == job.job_id


"""The type of the record of a batch."""


def is_of_open_batch(group: str, records: Mapping[str, Record]) -> bool:
    """Return whether a group is that of a batch which has not ended."""
    batch = records.get(group.removeprefix("group:")) if group.startswith("group:") else None
    return batch is not None and batch.get("type") == BATCH and "completed" not in batch


def parent_of(record: Record) -> str:
    """Return the id of the parent of a record, empty if it has none."""
    groups = _named(record.get("labels", ""))
    return next((group[9:] for group in groups if group.startswith("children:")), "")


def is_orphan(record: Record, statuses: Collection[str], other: Callable[[str], Record | None]) -> bool:
    """Return whether a record was made by a run of a parent that has one of these statuses, or no record.

    A `detached` one continues without its parent.
    """
    if "child_key" not in record or "detached" in record:
        return False
    parent = other(parent_of(record))
    return parent is None or parent["status"] in statuses


ORPHANS = "orphans:"
"""What the name of a job begins with whose open children are to be cancelled, among the groups that closed."""


def members_pair(group: str) -> str:
    """Return the pair among the labels that the members of a group have, and perhaps others; empty for ``job:ID``."""
    kind, _, name = group.partition(":")
    return next((f"{pair}={name}" for pair, start in _MEMBERSHIPS.items() if start == f"{kind}:"), "")


def after_groups(labels: str) -> list[str]:
    """Return the groups of `after` in the stored text of labels."""
    return [pair[len(AFTER) :] for pair in labels.split(US) if pair.startswith(AFTER)]


def awaited_groups(record: Record) -> list[str]:
    """Return the groups that a record waits for: those of its suspension, else those of `after`."""
    groups = record.get("wait_groups")
    return after_groups(record.get("labels", "")) if groups is None else groups.split(US)


def open_group(record: Record, members: Members) -> str | None:
    """Return the first awaited group that has an open member, or None."""
    return next((group for group in awaited_groups(record) if members.is_open(group)), None)


def failed_member(record: Record, statuses: Collection[str], members: Members) -> tuple[str, str] | None:
    """Return the first group of `after` with a member that ended in one of these statuses, and the id of that member.

    None if there is none, with `on_failure="run"`, and for a suspended run, which looks at its members itself.
    """
    if "suspended" in record or record.get("on_failure") == "run":
        return None
    for group in awaited_groups(record):
        job_id = members.ended_in(group, statuses)
        if job_id is not None:
            return group, job_id
    return None


BLAME_BYTES = 200
"""How much of the error of another job is repeated."""
BLAME_ENDS = {"failed": "failed: ", "cancelled": "was cancelled"}
"""The words on a member that ended in a status; its error follows a colon."""
BLAME_OTHER = "did not complete"


def blame_text(job_id: str, record: Record | None) -> str:
    """Return why a member of a group did not do its work: ``load failed: no such file (job ID)``. None: it was deleted.

    One that was itself cancelled because of another says what happened to that.
    """
    if record is None:
        return f"job {job_id} was deleted"
    if "failed_member" in record and "error" in record:
        return record["error"]
    how, error = BLAME_ENDS.get(record["status"], BLAME_OTHER), record.get("error", "")
    if how.endswith(": "):
        kept = error.encode()
        cut = error if len(kept) <= BLAME_BYTES else kept[:BLAME_BYTES].decode(errors="ignore") + "…"
        how = how + cut if error else how[:-2]
    return f"{record.get('type', '')} {how} (job {job_id})"
