"""What keeps a retry of a job from succeeding, for every surface that offers one."""

from __future__ import annotations

from milepost.core.job import Job, JobStatus
from milepost.core.placement import is_orphan
from milepost.core.transitions.table import LOST_PARENT
from milepost.core.values import RetryCheck
from milepost.manager.validation import rejection_error
from milepost.run.usage import blocking_budgets, budget_error
from milepost.stores.protocol import Select, Store, WriteResult
from milepost.stores.query import existing_job

NEWER_JOBS = 1000
"""Among how many of the newest jobs, first of the same type, the one with the unique key is looked for. A retry checks the key itself."""


class RetryCheckMethods:
    """Adds `retry_check` to a manager."""

    store: Store

    async def retry_check(self, job_id: str) -> RetryCheck:
        """Return what keeps a retry of a job from succeeding: why it would be refused, or fail at its start.

        Raises JobNotFoundError.
        """
        job = await existing_job(self.store, job_id)
        return await _refusal(self.store, job) or await _spent_budget(self.store, job) or RetryCheck()


async def _refusal(store: Store, job: Job) -> RetryCheck | None:
    reason, other = None, None
    if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        reason = "status"
    elif job.run_by not in ("worker", "external"):
        reason = "run_by"
    elif job.parent_id is not None and job.child_key is not None:
        parent = await store.get(job.parent_id)
        if is_orphan(job.record, LOST_PARENT.split(), lambda _: None if parent is None else parent.record):
            reason, other = "parent", job.parent_id
    elif job.unique_key is not None and (newer := await _newer_of_key(store, job)) is not None:
        reason, other = "unique_key", newer
    if reason is None:
        return None
    return RetryCheck(reason, str(rejection_error(WriteResult(-1, job), job.job_id, "retry")), other)


async def _newer_of_key(store: Store, job: Job) -> str | None:
    for types in ((job.job_type,), ()):
        newer = await store.select(Select(types=types, created_after=int(job.record["created"])), NEWER_JOBS)
        for one in newer:
            if one.unique_key == job.unique_key and one.job_id != job.job_id:
                return one.job_id
    return None


async def _spent_budget(store: Store, job: Job) -> RetryCheck | None:
    """Return a budget that keeps the job from starting and that no answer raises: its own, or that of a job above it."""
    spent = await blocking_budgets(store, job.job_id, job.record)
    for holder, overrun in spent.items():
        root = await store.get(holder) if overrun.asks and holder != job.job_id else None
        if not overrun.asks or (root is not None and root.is_terminal):
            text = f"A retry of job {job.job_id} fails at its start: {budget_error(job.job_id, holder, overrun)}"
            return RetryCheck("budget", text, holder)
    return None
