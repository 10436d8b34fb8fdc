"""Submits inside a transaction of the caller: the job exists if and only if that transaction commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.manager.manager import AsyncJobManager
from milepost.run import transaction
from milepost.run.otel import submit_span
from milepost.run.runtime import Runtime
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import blocking

if TYPE_CHECKING:
    from milepost.app.jobs import AsyncJobs, Target


class AsyncTransactionalJobs:
    """What `AsyncJobs.using` returns. Use it only before the transaction ends."""

    def __init__(self, jobs: AsyncJobs, connection: object) -> None:
        transaction.refuse_other_stores(jobs.store)
        if jobs.dispatcher is not None:
            raise InvalidInputError("using", "cannot be used with a task queue, which sees the job before the commit")
        self._jobs = jobs
        self._connection = connection

    async def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        """Create a job in the transaction and return it. Workers see it when the transaction has committed.

        The arguments are those of `Jobs.submit`, without ``on_duplicate="supersede"``. Another submit with
        the same `job_id` or `unique_key` waits until the transaction ends; after 2 s it raises LeaseHeldError. A job in
        `after` cannot be deleted until then.
        """
        within = await self._within()
        submission = await self._jobs.submissions.build(target, args, kwargs)
        if submission.on_duplicate == "supersede":
            raise InvalidInputError("on_duplicate", 'cannot be "supersede" in a transaction of yours')
        with submit_span(submission.fields) as created:
            job = await within._record(submission)
            created(job.job_id)
        return job

    async def submit_many(self, /, target: Target, params: Iterable[Mapping[str, Any]], **options: Any) -> list[str]:
        """Create many jobs of one type in the transaction and return their ids in order, as `Jobs.submit_many` does."""
        within = await self._within()
        return await within._create_many(await self._jobs._build_many(target, params, options))

    async def get_job(self, job_id: str) -> Job | None:
        """Return a job as the transaction sees it, or None if it does not exist."""
        return await (await self._within()).get_job(job_id)

    async def _within(self) -> AsyncJobs:
        """Return jobs whose store reads and writes in the transaction."""
        runtime = self._jobs.runtime
        manager = AsyncJobManager.of(
            Runtime(await self._open(), runtime.settings, runtime.ttl), self._jobs.manager.origin
        )
        return self._jobs.with_manager(manager)

    async def _open(self) -> Store:
        store: Store = await transaction.awithin(self._jobs.store, self._connection)
        return store


class _BlockingForm(AsyncTransactionalJobs):
    """AsyncTransactionalJobs over a blocking connection; its coroutines never suspend."""

    def __init__(self, jobs: AsyncJobs, connection: object) -> None:
        super().__init__(jobs, connection)
        self._store: Store = transaction.within(jobs.store, connection)

    async def _open(self) -> Store:
        return self._store


class TransactionalJobs:
    """What `Jobs.using` returns. Use it only before the transaction ends."""

    def __init__(self, jobs: AsyncJobs, connection: object) -> None:
        self._async = _BlockingForm(jobs, connection)

    submit = blocking(AsyncTransactionalJobs.submit)
    submit_many = blocking(AsyncTransactionalJobs.submit_many)
    get_job = blocking(AsyncTransactionalJobs.get_job)
