"""The creation of jobs: its change, and the error for a record that was not created."""

from __future__ import annotations

from collections.abc import Mapping

from milepost.core.errors import DuplicateJobError, RejectedError
from milepost.core.placement import groups_joined
from milepost.core.transitions import plan_create
from milepost.core.transitions.change import Change
from milepost.run import context
from milepost.stores.protocol import Store, WriteResult
from milepost.stores.refused_groups import group_error


async def creation_error(store: Store, job_id: str, fields: Mapping[str, str], outcome: WriteResult) -> RejectedError:
    """Return the error for a record with these fields that was not created."""
    if outcome.key_owner_id is not None:
        owner = await store.get(outcome.key_owner_id)
        return DuplicateJobError(f"unique_key: taken by job {outcome.key_owner_id}", job=owner)
    if outcome.job is not None:
        return DuplicateJobError(f"Job {job_id} already exists", job=outcome.job)
    if (refused := await group_error(store, job_id, fields)) is not None:
        return refused
    return DuplicateJobError(f"Job {job_id} was created by this request and then deleted")


def plan_new(fields: Mapping[str, str], operation_id: str, again: int | None = None) -> Change:
    """Return the change that creates a record. A run that is a member of its groups may join a closed batch."""
    joined = groups_joined(fields["labels"]) if ":group=" in fields.get("labels", "") else []
    run = context.current() if joined else None
    if run is None or not set(joined) <= set(groups_joined(run._job.record.get("labels", ""))):
        return plan_create(fields, operation_id, again)
    return plan_create(fields, operation_id, again, run=(run.job_id, run.token), member=True)
