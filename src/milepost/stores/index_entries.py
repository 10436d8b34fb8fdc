"""The index entries of a record, as a pure function of its fields.

The memory store maintains its indexes with it, and the conformance suite checks the other stores against it.
"""

from __future__ import annotations

from milepost.core.job import Job
from milepost.core.limits import counted_under, queue_name
from milepost.core.placement import memberships, starts_at
from milepost.core.serialization import US
from milepost.core.transitions.change import Record

Entry = tuple[tuple[str, ...], tuple[int | str, ...]]
"""An index and a sort key that ends with the job id."""

WAITING_FOR_STOP = '{"code":"previous_run_stopping"}'


def index_entries(job_id: str, record: Record, *, now: int, parked: bool) -> set[Entry]:
    """Return the index entries of a record. `parked`: a draining lease has its id or unique key, so it is not claimable."""
    created = int(record["created"])
    order = (created, job_id)
    entries: set[Entry] = {(("list", record["type"], record["status"]), order)}
    for pair in filter(None, record.get("labels", "").split(US)):
        entries.add((("label", pair), order))
    if record.get("stalled"):
        entries.add((("stalled",), order))
    if record.get("unique_key"):
        entries.add((("key", record["unique_key"]), order))
    if "lease" in record:
        entries.add((("lease",), (int(record["lease"]), job_id)))
        entries.update((("slot", name), order) for name in counted_under(record.get("slot", "")))
        entries.add((("worker", record.get("worker", "")), order))
    if "stale" in record:
        entries.add((("stale",), (int(record["stale"]), job_id)))
    if "completed" in record:
        entries.add((("ended",), (int(record["completed"]), job_id)))
    if "not_after" in record and "started" not in record and "completed" not in record:
        entries.add((("deadline",), (int(record["not_after"]), job_id)))
    if record.get("held"):
        entries.add((("held", record["held"]), order))
    for group, ended in memberships(record) if "labels" in record else ():
        entries.add((("member", group, ended), (job_id,)))
    queue = record.get("ready")
    if queue:
        due = None if parked else starts_at(record)
        if due is not None and due > now:
            entries.add((("scheduled", queue_name(queue)), (due, job_id)))
        elif due is not None:
            entries.add((("claimable", queue), (-int(record.get("priority", 0)), created, job_id)))
    return entries


def is_elsewhere(job: Job, task_queue: str | None) -> bool:
    """Return whether a job is run by another task queue than this one."""
    return job.run_by == "external" and job.record.get("task_queue") != task_queue
