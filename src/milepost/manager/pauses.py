"""Pause one job, and resume it."""

from __future__ import annotations

from milepost.core.errors import IllegalTransitionError
from milepost.core.job import Job
from milepost.core.serialization import single_line, to_json
from milepost.core.transitions import plan_pause, plan_resume_paused
from milepost.core.transitions.operations import Change
from milepost.manager.validation import rejection_error
from milepost.stores.protocol import Store, Write


async def pause(store: Store, operation_id: str, job_id: str, by: str | None) -> Job:
    """Suspend a job until `resume`, and return it. Raises as `AsyncJobManager.pause`."""
    who = None if by is None else single_line(by)
    return await _apply(store, job_id, plan_pause(operation_id, by=who, data=to_json({"by": who}, "by")), "pause")


async def resume(store: Store, operation_id: str, job_id: str, by: str | None) -> Job:
    """Let a paused job continue, and return it. Raises as `AsyncJobManager.resume`."""
    who = None if by is None else single_line(by)
    return await _apply(store, job_id, plan_resume_paused(operation_id, data=to_json({"by": who}, "by")), "resume")


async def _apply(store: Store, job_id: str, change: Change, verb: str) -> Job:
    outcome = (await store.apply([Write(job_id, change)])).outcomes[0]
    if outcome.accepted and outcome.job is not None:
        return outcome.job
    job = outcome.job
    if job is None or outcome.wait or job.is_terminal:
        raise rejection_error(outcome, job_id, verb)
    if verb == "resume":
        why = "it is not paused"
    elif job.run_by not in ("worker", "external"):
        why = "it was not submitted to a worker"
    elif job.run_by == "external" and job.status == "running":
        why = "a task queue runs it; cancel it instead"
    else:
        why = "it is paused"
    raise IllegalTransitionError(f"Cannot {verb} job {job_id}: {why}", job=job)
