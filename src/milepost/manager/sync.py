"""JobManager: the blocking API of AsyncJobManager, and its three ready-made kinds."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Protocol

from milepost.core.job import Job
from milepost.core.result_types import R
from milepost.core.serialization import Duration
from milepost.forks import ForkSafeLock
from milepost.manager.manager import AsyncJobManager, open_runtime
from milepost.run.runtime import Runtime
from milepost.run.track import Track
from milepost.settings import Settings, settings
from milepost.stores.factory import open_store
from milepost.stores.protocol import Position, Select, Store
from milepost.stores.query import created
from milepost.stores.sync_bridge import adapted, blocking, blocking_iterator, run_sync


class _AsyncMethods(Protocol):
    """An AsyncJobManager, or an AsyncJobs with its methods."""

    store: Store
    settings: Settings
    ttl: float
    runtime: Runtime

    async def wait(self, job: Job[R] | str, timeout: Duration | None = None) -> Job[R]: ...

    async def result(self, job: Job[R] | str) -> R: ...


class BlockingMethods:
    """The blocking methods that JobManager and Jobs have in common: those of the object in `_async`."""

    _async: _AsyncMethods

    @property
    def store(self) -> Store:
        """Return the store of the jobs."""
        return self._async.store

    @property
    def settings(self) -> Settings:
        """Return the settings of this manager."""
        return self._async.settings

    @property
    def ttl(self) -> float:
        """Return how many seconds an ended job is kept."""
        return self._async.ttl

    @property
    def runtime(self) -> Runtime:
        """Return the heartbeat and the sweeper of this manager."""
        return self._async.runtime

    create_job = blocking(AsyncJobManager.create_job)
    get_job = blocking(AsyncJobManager.get_job)
    update_job = blocking(AsyncJobManager.update_job)
    list_jobs = blocking(AsyncJobManager.list_jobs)
    delete_job = blocking(AsyncJobManager.delete_job)
    find = blocking(AsyncJobManager.find)
    count_jobs = blocking(AsyncJobManager.count_jobs)
    history = blocking(AsyncJobManager.history)
    cancel_job = blocking(AsyncJobManager.cancel_job)
    retry_job = blocking(AsyncJobManager.retry_job)
    retry_check = blocking(AsyncJobManager.retry_check)
    answer = blocking(AsyncJobManager.answer)
    pause = blocking(AsyncJobManager.pause)
    resume = blocking(AsyncJobManager.resume)
    events = blocking(AsyncJobManager.events)
    watch = blocking_iterator(AsyncJobManager.watch)
    output = blocking(AsyncJobManager.output)
    follow_output = blocking_iterator(AsyncJobManager.follow_output)
    usage = blocking(AsyncJobManager.usage)
    job_usage = blocking(AsyncJobManager.job_usage)
    enqueue = blocking(AsyncJobManager.enqueue)
    list_schedules = blocking(AsyncJobManager.list_schedules)
    get_schedule = blocking(AsyncJobManager.get_schedule)
    pause_schedule = blocking(AsyncJobManager.pause_schedule)
    resume_schedule = blocking(AsyncJobManager.resume_schedule)
    fire_schedule = blocking(AsyncJobManager.fire_schedule)
    remove_schedule = blocking(AsyncJobManager.remove_schedule)
    close = blocking(AsyncJobManager.close)

    def wait(self, job: Job[R] | str, timeout: Duration | None = None) -> Job[R]:
        """Wait until the job, given as a Job or by its id, has ended, and return it.

        Raises WaitTimeoutError after `timeout`, and JobNotFoundError.
        """
        return run_sync(self._async.wait(job, timeout))

    def result(self, job: Job[R] | str) -> R:
        """Return the result of a completed job, given as a Job or by its id.

        Raises ResultNotSerialisableError, with the text, if the result is not JSON, RejectedError, with the record as
        `.job`, if the job has not completed, and JobNotFoundError.
        """
        return run_sync(self._async.result(job))


class JobManager(BlockingMethods):
    """Manages the jobs of one store from blocking code. The base class of all blocking managers.

    It also works inside an event loop. `store` is a URL or an open blocking store; `ttl` is how many seconds an ended
    job is kept (default: JOB_TTL). Raises InvalidInputError for an invalid URL or an async store.
    """

    _async: AsyncJobManager

    def __init__(self, store: Store | str, *, ttl: float | None = None, options: Settings | None = None) -> None:
        self._async = AsyncJobManager.of(open_runtime(store, ttl, options, blocking=True))

    @classmethod
    def of(cls, runtime: Runtime) -> JobManager:
        """Return a manager with a runtime that exists."""
        manager = JobManager.__new__(cls)
        manager._async = AsyncJobManager.of(runtime)
        return manager

    track = adapted(AsyncJobManager.track, lambda block: Track(block.request))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store.url!r})"


class _Jobs(Mapping[str, Job]):
    """The jobs of a store as a read-only mapping of id to Job."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, job_id: str) -> Job:
        job = run_sync(self._store.get(job_id))
        if job is None:
            raise KeyError(job_id)
        return job

    def __iter__(self) -> Iterator[str]:
        after: Position | None = None
        while batch := run_sync(self._store.select(Select(), 1000, after)):
            for job in batch:
                yield job.job_id
            after = Position(created(batch[-1]), batch[-1].job_id)

    def __len__(self) -> int:
        return run_sync(self._store.count(Select())) or 0


class InMemoryJobManager(JobManager):
    """Manages jobs in the memory of this process, for development and tests. They are gone when the process ends."""

    def __init__(self, *, ttl: float | None = None, options: Settings | None = None) -> None:
        super().__init__("memory://", ttl=ttl, options=options)

    @property
    def jobs(self) -> Mapping[str, Job]:
        """Return all jobs by id, as a read-only view."""
        return _Jobs(self.store)


class SQLiteJobManager(JobManager):
    """Manages jobs in one SQLite file, shared by the processes of one machine."""

    def __init__(self, path: str | os.PathLike[str] = "jobs.db", *, ttl: float | None = None, options: Settings | None = None) -> None:  # fmt: skip
        from milepost.stores.sqlite import SQLiteStore  # imported only if SQLite is used

        options = options if options is not None else settings.current()
        super().__init__(SQLiteStore(path, namespace=options.namespace), ttl=ttl, options=options)


class RedisJobManager(JobManager):
    """Manages jobs in Redis or Valkey, shared by workers on many machines."""

    def __init__(
        self, redis_url: str = "redis://localhost:6379/0", *, ttl: float | None = None, options: Settings | None = None
    ) -> None:
        options = options if options is not None else settings.current()
        store = open_store(redis_url, namespace=options.namespace)
        super().__init__(store, ttl=ttl, options=options)


_lock = ForkSafeLock()
_manager: JobManager | None = None


def get_job_manager() -> JobManager:
    """Return the manager of this process: MILEPOST_URL, else REDIS_URL, else in memory. Always the same object."""
    global _manager
    if _manager is None:
        with _lock:
            if _manager is None:
                options = settings.current()
                url = options.store_url
                if url.startswith("memory:"):
                    _manager = InMemoryJobManager(options=options)
                elif url.startswith("sqlite:"):
                    _manager = SQLiteJobManager(url, options=options)
                elif url.startswith(("redis", "unix:", "valkey:")):
                    _manager = RedisJobManager(url, options=options)
                else:
                    _manager = JobManager(url, options=options)
    return _manager
