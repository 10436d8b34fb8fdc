"""JobManager: the blocking API of AsyncJobManager, and its three ready-made kinds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack

from milepost.core.defaults import LIST_LIMIT
from milepost.core.events import Event
from milepost.core.job import Job, JobStatus
from milepost.core.serialization import Duration
from milepost.manager.manager import AsyncJobManager
from milepost.manager.options import CreateOptions
from milepost.run.runtime import Runtime
from milepost.run.track import Track
from milepost.settings import Settings, settings
from milepost.stores.factory import open_store
from milepost.stores.protocol import Position, Select, Store
from milepost.stores.query import Page, Query, created
from milepost.stores.sync_bridge import iter_sync, run_sync

if TYPE_CHECKING:
    from milepost.query.history import History


class _SyncCore(AsyncJobManager):
    """AsyncJobManager over a blocking store: its coroutines never suspend."""

    _blocking = True


class JobManager:
    """Manages the jobs of one store from blocking code. The base class of all blocking managers.

    It also works inside an event loop. `store` is a URL or an open blocking store; `ttl` is how many seconds an ended
    job is kept (default: JOB_TTL). Raises InvalidInputError for an invalid URL or an async store.
    """

    _async: AsyncJobManager

    def __init__(self, store: Store | str, *, ttl: float | None = None, options: Settings | None = None) -> None:
        self._async = _SyncCore(store, ttl=ttl, options=options)

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

    def create_job(
        self,
        job_id: str | None = None,
        job_type: str = "generic",
        metadata: Mapping[str, Any] | None = None,
        **options: Unpack[CreateOptions],
    ) -> Job:
        """Create a pending job that its caller updates with `update_job`, and return it.

        After `stale_after` without an update (default 10 min) it is flagged as stalled, or failed with
        ``on_stale="fail"``. Raises DuplicateJobError if the id or unique key is taken, and InvalidInputError.
        """
        return run_sync(self._async.create_job(job_id, job_type, metadata, **options))

    def get_job(self, job_id: str) -> Job | None:
        """Return the job, or None if it does not exist."""
        return run_sync(self._async.get_job(job_id))

    def update_job(
        self,
        job_id: str,
        status: JobStatus | str | None = None,
        progress: float | None = None,
        message: str | None = None,
        error: str | None = None,
        result: Any = None,
    ) -> None:
        """Write the status and progress of a manual job, made by `create_job`, in one atomic step.

        `progress` is clamped to [0, 1] and never goes back within an attempt. `message` and `error` are cut to 1 KiB
        and 8 KiB. Every other job accepts only ``status=CANCELLED``. Raises JobNotFoundError,
        IllegalTransitionError, LeaseHeldError (all ValueErrors with the record as `.job`) and InvalidInputError.
        """
        run_sync(self._async.update_job(job_id, status, progress, message, error, result))

    def list_jobs(
        self,
        job_type: str | None = None,
        status: JobStatus | str | None = None,
        limit: int = LIST_LIMIT,
        *,
        labels: Mapping[str, str] | None = None,
        stalled: bool = False,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        cursor: str | None = None,
    ) -> list[Job]:
        """Return the newest `limit` jobs (at most 1,000) that match, newest first, ties by id.

        `find` returns the same with the total and the cursor of the next page.
        """
        return run_sync(
            self._async.list_jobs(
                job_type,
                status,
                limit,
                labels=labels,
                stalled=stalled,
                created_after=created_after,
                created_before=created_before,
                cursor=cursor,
            )
        )

    def delete_job(self, job_id: str) -> None:
        """Delete a job with all its data, if it exists. A running job is cancelled in the same step."""
        run_sync(self._async.delete_job(job_id))

    def find(self, query: Query | None = None, limit: int = LIST_LIMIT, cursor: str | None = None) -> Page:
        """Return one page of the jobs that match a query, with the total. Filters apply before the limit."""
        return run_sync(self._async.find(query, limit, cursor))

    def count_jobs(
        self,
        job_type: str | None = None,
        status: JobStatus | str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        stalled: bool = False,
    ) -> int:
        """Return the exact number of jobs that match."""
        return run_sync(self._async.count_jobs(job_type, status, labels=labels, stalled=stalled))

    def history(
        self,
        window: Duration = "24h",
        step: Duration = "15m",
        *,
        job_type: str | None = None,
        queue: str | None = None,
    ) -> History:
        """Return how many jobs ended in the last `window`, by step and by type, with quantiles of run and wait times.

        Kept by the store for 60 days (two days by the minute), also for jobs that were deleted since.
        """
        return run_sync(self._async.history(window, step, job_type=job_type, queue=queue))

    def cancel_job(self, job_id: str, reason: str | None = None, *, by: str | None = None) -> Job:
        """Cancel a job and return it. The status is final when this returns; running code is signalled at once.

        `.receipt` tells when and how the code stopped. Raises JobNotFoundError, and IllegalTransitionError if the job
        has ended.
        """
        return run_sync(self._async.cancel_job(job_id, reason, by=by))

    def retry_job(self, job_id: str, *, only_failed: bool = False, from_start: bool = False) -> Job:
        """Return a failed or cancelled job to pending with a new retry budget; it continues where it stopped.

        `from_start` discards its checkpoint, state and kept results, so that its loops start at their first item.
        `only_failed` submits a new job for the failed items only, with `retry_of`; this also works on completed jobs.
        Raises JobNotFoundError and IllegalTransitionError.
        """
        return run_sync(self._async.retry_job(job_id, only_failed=only_failed, from_start=from_start))

    def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """Return the stored events of a job with a version above `after`, oldest first. Raises JobNotFoundError."""
        return run_sync(self._async.events(job_id, after, limit))

    def watch(self, job_id: str, after: str | int | None = None) -> Iterator[Event]:
        """Yield each event of a job as it happens, until its last event.

        The first event is a snapshot, unless `after` is given: the `position` of an event, after which the watch
        continues. If that job was deleted and its id used again, the watch starts with a snapshot of the new job. A
        version alone is accepted as well, for whichever job has the id. Events that are no longer stored are reported
        as one event of kind ``skipped``. Raises JobNotFoundError.
        """
        return iter_sync(self._async.watch(job_id, after))

    def wait(self, job_id: str, timeout: Duration | None = None) -> Job:
        """Wait until the job has ended and return it. Raises WaitTimeoutError after `timeout`, and JobNotFoundError."""
        return run_sync(self._async.wait(job_id, timeout))

    def result(self, job: Job | str) -> Any:
        """Return the result of a completed job, given as a Job or by its id.

        Raises ResultNotSerialisableError, with the text, if the result is not JSON, RejectedError, with the record as
        `.job`, if the job has not completed, and JobNotFoundError.
        """
        return run_sync(self._async.result(job))

    def enqueue(
        self, job_type: str, params: Mapping[str, Any] | None = None, *, job_id: str | None = None, **options: Any
    ) -> Job:
        """Create a job for workers without validation against its type, and return it. `Jobs.submit` validates."""
        return run_sync(self._async.enqueue(job_type, params, job_id=job_id, **options))

    def track(
        self,
        job_type: str = "generic",
        *,
        unique_key: str | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        parent_id: str | None = None,
        plan: Mapping[str, float] | None = None,
    ) -> Track:
        """Track a block of code as a job: ``with manager.track("ingestion") as run``.

        With the same `unique_key`, a failed, cancelled or lost job is resumed, with its checkpoint. `job_id` adopts a
        pending job of `create_job`, or sets the id of the new job. `plan` names the stages in advance, with their
        weights. Raises LeaseHeldError if a live run has the key, DuplicateJobError and InvalidInputError.
        """
        return Track(self._async._track_request(job_type, unique_key, job_id, metadata, labels, parent_id, plan))

    def close(self) -> None:
        """Close the connections. The manager can be used again."""
        run_sync(self._async.close())

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


_lock = threading.Lock()
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


def _after_fork() -> None:
    """Replace the lock, which another thread may have held during the fork."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
