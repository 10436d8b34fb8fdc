"""The progress of a job that waits for its children, and of a batch: how many of these jobs have ended.

It is read from the index of their group when the job is shown, because the record of the job does not change when they end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from milepost.core.job import Job, JobStatus
from milepost.core.placement import BATCH, is_batch
from milepost.core.serialization import to_json
from milepost.core.values import MemberCounts
from milepost.stores.protocol import Select, Store

STALLED_LIMIT = 100
"""How many stalled batches are looked at, the newest."""


def member_group(job: Job) -> str | None:
    """Return the group whose members are the progress of a job: its children while it waits for them, or the jobs of a batch."""
    if job.status is JobStatus.PENDING:
        children = f"children:{job.job_id}"
        return children if job.record.get("held") == children else None
    return f"group:{job.job_id}" if job.status is JobStatus.RUNNING and is_batch(job) else None


async def with_member_progress(store: Store, jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs. Those with a `member_group` get the numbers of its members in `waiting_for`, and their progress; those
    that wait for a stalled batch get why it stalls.

    One round trip for all of each kind; none without such jobs.
    """
    jobs = await _with_stalled_batches(store, jobs)
    groups = {job.job_id: group for job in jobs if (group := member_group(job)) is not None}
    if not groups:
        return jobs
    found = await store.member_counts(list(groups.values()))
    counts = dict(zip(groups, found, strict=True))
    return [_described(job, groups[job.job_id], counts[job.job_id]) if job.job_id in groups else job for job in jobs]


async def _with_stalled_batches(store: Store, jobs: Sequence[Job]) -> list[Job]:
    held = {job.job_id: job.record.get("held", "") for job in jobs if job.status is JobStatus.PENDING}
    if not any(group.startswith("group:") for group in held.values()):
        return list(jobs)
    found = await store.select(Select(types=(BATCH,), statuses=("running",), stalled=True), STALLED_LIMIT)
    why = {f"group:{batch.job_id}": batch.stalled for batch in found}
    return [
        _waiting(job, {"group": group, "stalled": why[group]}) if (group := held.get(job.job_id, "")) in why else job
        for job in jobs
    ]


def _waiting(job: Job, params: Mapping[str, object]) -> Job:
    reason = to_json({"code": "after", "params": params}, "waiting_for")
    return Job.stored(job.job_id, {**job.record, "waiting_for": reason})


def _described(job: Job, group: str, states: dict[str, int]) -> Job:
    is_open_batch = job.job_type == BATCH and "closed" not in job.record
    if is_open_batch and "closed" not in states:
        states = {**states, "": max(0, states.get("", 0) - 1)}  # the record of the batch itself
    counts = MemberCounts.of(states)
    known = {} if job.waiting_for is None else job.waiting_for.params
    job = _waiting(job, {**known, "group": group, **counts.to_dict()})
    # A job keeps the progress that it has reported itself. More jobs may come to an open batch.
    if counts.total and not job.progress and not is_open_batch:
        fields = {"progress": repr(counts.progress), "progress_known": "1"}
        return Job.stored(job.job_id, {**job.record, **fields})
    return job
