"""Submits inside a transaction of the caller: the job exists if and only if that transaction commits."""

from __future__ import annotations

from typing import Any

from milepost.app.jobs import AsyncJobs, Target
from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.manager.manager import AsyncJobManager
from milepost.run.otel import submit_span
from milepost.run.runtime import Runtime
from milepost.stores.sync_bridge import run_sync


class TransactionalJobs:
    """Submits jobs inside an open transaction of the caller. Use it only before that ends."""

    def __init__(self, jobs: AsyncJobs, connection: object) -> None:
        within = getattr(jobs.store, "within", None)
        if within is None:
            raise InvalidInputError("using", f"needs a PostgreSQL store, and jobs are in {jobs.store.url}")
        if jobs.dispatcher is not None:
            raise InvalidInputError("using", "cannot be used with a task queue, which sees the job before the commit")
        self._jobs = jobs
        runtime = jobs.runtime
        manager = AsyncJobManager.of(Runtime(within(connection), runtime.settings, runtime.ttl), jobs.manager.origin)
        self._within = jobs.with_manager(manager)

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        """Create a job in the transaction and return it. Workers see it when the transaction has committed.

        The arguments are those of `Jobs.submit`, without ``on_duplicate="supersede"``. With a `unique_key`
        another submit of that key waits until the transaction ends; after 2 s it raises LeaseHeldError. A job in `after` cannot
        be deleted until then.
        """
        return run_sync(self._submit(target, *args, **kwargs))

    def get_job(self, job_id: str) -> Job | None:
        """Return a job as the transaction sees it, or None if it does not exist."""
        return run_sync(self._within.get_job(job_id))

    async def _submit(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        submission = await self._jobs.submissions.build(target, args, kwargs)
        if submission.on_duplicate == "supersede":
            raise InvalidInputError("on_duplicate", 'cannot be "supersede" in a transaction of yours')
        with submit_span(submission.fields) as created:
            job = await self._within._record(submission)
            created(job.job_id)
        return job
