"""Refusals of new jobs: the error for a record that was not created, and jobs that would wait for themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from milepost.core.codecs import pair_values
from milepost.core.errors import DuplicateJobError, InvalidInputError, RejectedError
from milepost.core.placement import BATCH, after_groups, groups_joined, member_groups, members_pair
from milepost.core.transitions import plan_create
from milepost.core.transitions.operations import Change
from milepost.run import context
from milepost.stores.protocol import Select, Store, WriteResult

DEPTH = 16
"""The most ancestors, and the most waiting jobs one after the other, that are looked at."""
LOOKED_AT = 1000
"""The most waiting members that are looked at."""


def unknown_error(field: str, group: str, remedy: str = "submit it first") -> InvalidInputError:
    """Return the error for a job, as ``job:ID``, or a group, as ``group:NAME``, that does not exist."""
    kind, _, name = group.partition(":")
    if kind == "group":
        return InvalidInputError(field, f"no job is in the group {name!r:.140}; submit its members first")
    return InvalidInputError(field, f"there is no job {name!r:.140}; {remedy}")


async def creation_error(store: Store, job_id: str, fields: Mapping[str, str], outcome: WriteResult) -> RejectedError:
    """Return the error for a record with these fields that was not created."""
    if outcome.key_owner_id is not None:
        owner = await store.get(outcome.key_owner_id)
        return DuplicateJobError(f"unique_key: taken by job {outcome.key_owner_id}", job=owner)
    if outcome.job is not None:
        return DuplicateJobError(f"Job {job_id} already exists", job=outcome.job)
    for name in groups_joined(fields.get("labels", "")):
        batch = await store.get(name)
        if batch is not None and batch.job_type == BATCH and (batch.is_terminal or "closed" in batch.record):
            return InvalidInputError("group", f"batch {name!r:.140} is closed; only its running members can add jobs")
    for group in after_groups(fields.get("labels", "")):
        kind, _, name = group.partition(":")
        if kind == "group" and not await store.count(Select(labels=((":group", name),))):
            return unknown_error("after", group)
        if kind != "group" and await store.get(name) is None:
            return unknown_error(
                "after", group, "a job cannot wait for itself" if name == job_id else "submit it first"
            )
    return DuplicateJobError(f"Job {job_id} was created by this request and then deleted")


def plan_new(fields: Mapping[str, str], operation_id: str, again: int | None = None) -> Change:
    """Return the change that creates a record. A run that is a member of its groups may join a closed batch."""
    joined = groups_joined(fields["labels"]) if ":group=" in fields.get("labels", "") else []
    run = context.current() if joined else None
    if run is None or not set(joined) <= set(groups_joined(run._job.record.get("labels", ""))):
        return plan_create(fields, operation_id, again)
    return plan_create(fields, operation_id, again, run=(run.job_id, run.token), member=True)


async def refuse_cycle(store: Store, fields: Mapping[str, str]) -> None:
    """Raise InvalidInputError if a new record with these fields would wait for itself.

    Costs nothing unless the record has both `after` and a group or parent. These never change, so that a later change of
    other jobs makes no cycle. What is beyond DEPTH and LOOKED_AT is not seen.
    """
    labels = fields.get("labels", "")
    awaited, own = after_groups(labels), member_groups(labels)
    if not awaited or not own:
        return
    _refuse(awaited, own, "the job itself is a member of it")
    parent = next(iter(pair_values(labels, "parent_id")), None)
    for _ in range(DEPTH):
        job = await store.get(parent) if parent is not None else None
        if job is None:
            break
        _refuse(
            awaited, [f"job:{job.job_id}", *member_groups(job.record.get("labels", ""))], "a parent of the job is in it"
        )
        parent = job.parent_id
    await _refuse_waiting(store, awaited, own)


def _refuse(awaited: Iterable[str], groups: Iterable[str], why: str) -> None:
    for group in groups:
        if group in awaited:
            raise InvalidInputError("after", f"{group!r:.170} would never close: {why}; omit it")


async def _refuse_waiting(store: Store, awaited: Iterable[str], own: Iterable[str]) -> None:
    """Follow the groups that waiting members of the awaited groups wait for, and so on."""
    seen, left, groups = set(awaited), LOOKED_AT, list(awaited)
    for _ in range(DEPTH):
        following: list[str] = []
        for group in groups:
            key, _, value = members_pair(group).partition("=")
            if key:
                select = Select(labels=((key, value),), statuses=("pending",))
                members = await store.select(select, left)
            else:
                members = [job for job in [await store.get(group.partition(":")[2])] if job is not None]
            left -= len(members)
            for job in members:
                if "held" in job.record:
                    _refuse(job.after, own, f"job {job.job_id} in {group} waits for it")
                    following += (one for one in job.after if one not in seen)
                    seen.update(job.after)
            if left <= 0:
                return
        groups = following
        if not groups:
            return
