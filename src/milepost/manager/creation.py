"""The creation of jobs: its change, and the error for a record that was not created."""

from __future__ import annotations

from collections.abc import Mapping

from milepost.core.errors import DuplicateJobError, InvalidInputError, RejectedError
from milepost.core.placement import BATCH, after_groups, groups_joined
from milepost.core.transitions import plan_create
from milepost.core.transitions.operations import Change
from milepost.run import context
from milepost.stores.protocol import Select, Store, WriteResult


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
    if (name := await closed_batch(store, fields.get("labels", ""))) is not None:
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


async def closed_batch(store: Store, labels: str) -> str | None:
    """Return the name of a closed batch among the groups in the stored text of labels, or None."""
    for name in groups_joined(labels):
        batch = await store.get(name)
        if batch is not None and batch.job_type == BATCH and (batch.is_terminal or "closed" in batch.record):
            return name
    return None


def plan_new(fields: Mapping[str, str], operation_id: str, again: int | None = None) -> Change:
    """Return the change that creates a record. A run that is a member of its groups may join a closed batch."""
    joined = groups_joined(fields["labels"]) if ":group=" in fields.get("labels", "") else []
    run = context.current() if joined else None
    if run is None or not set(joined) <= set(groups_joined(run._job.record.get("labels", ""))):
        return plan_create(fields, operation_id, again)
    return plan_create(fields, operation_id, again, run=(run.job_id, run.token), member=True)
