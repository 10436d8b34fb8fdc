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
from milepost.stores.sync_bridge import run_sync

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
        return await self._submit(await transaction.awithin(self._jobs.store, self._connection), target, args, kwargs)

    async def submit_many(self, target: Target, params: Iterable[Mapping[str, Any]], **options: Any) -> list[str]:
        """Create many jobs of one type in the transaction and return their ids in order, as `Jobs.submit_many` does."""
        store = await transaction.awithin(self._jobs.store, self._connection)
        return await self._submit_many(store, target, params, options)

    async def get_job(self, job_id: str) -> Job | None:
        """Return a job as the transaction sees it, or None if it does not exist."""
        return await self._within(await transaction.awithin(self._jobs.store, self._connection)).get_job(job_id)

    async def _submit(self, store: Store, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
        submission = await self._jobs.submissions.build(target, args, kwargs)
        if submission.on_duplicate == "supersede":
            raise InvalidInputError("on_duplicate", 'cannot be "supersede" in a transaction of yours')
        with submit_span(submission.fields) as created:
            job = await self._within(store)._record(submission)
            created(job.job_id)
        return job

    async def _submit_many(
        self, store: Store, target: Target, params: Iterable[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> list[str]:
        return await self._within(store)._create_many(await self._jobs._build_many(target, params, options))

    def _within(self, store: Store) -> AsyncJobs:
        runtime = self._jobs.runtime
        manager = AsyncJobManager.of(Runtime(store, runtime.settings, runtime.ttl), self._jobs.manager.origin)
        return self._jobs.with_manager(manager)


class TransactionalJobs:
    """What `Jobs.using` returns. Use it only before the transaction ends."""

    def __init__(self, jobs: AsyncJobs, connection: object) -> None:
        self._async = AsyncTransactionalJobs(jobs, connection)
        self._store = transaction.within(jobs.store, connection)

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        return run_sync(self._async._submit(self._store, target, args, kwargs))

    def submit_many(self, target: Target, params: Iterable[Mapping[str, Any]], **options: Any) -> list[str]:
        return run_sync(self._async._submit_many(self._store, target, params, options))

    def get_job(self, job_id: str) -> Job | None:
        return run_sync(self._async._within(self._store).get_job(job_id))

    submit.__doc__ = AsyncTransactionalJobs.submit.__doc__
    submit_many.__doc__ = AsyncTransactionalJobs.submit_many.__doc__
    get_job.__doc__ = AsyncTransactionalJobs.get_job.__doc__
