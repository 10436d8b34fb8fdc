"""JobManager and its three stores: AsyncJobManager for code without an event loop, one line a method. Owns no behaviour."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from milepost.core.defaults import LIST_LIMIT
from milepost.core.events import Event
from milepost.core.job import Job, JobStatus
from milepost.manager.asynchronous import AsyncJobManager
from milepost.manager.requests import Duration
from milepost.settings import Settings, settings
from milepost.stores.driving import drive, drive_each
from milepost.stores.opening import open_store
from milepost.stores.protocol import Position, Select, Store
from milepost.stores.query import Page, Query, created
from milepost.tracking.block import Track


class _BlockingFace(AsyncJobManager):
    """The same calls over a blocking store: none of them ever suspends."""

    _blocking = True


class JobManager:
    """Jobs in one store, for code that blocks; usable inside an event loop too. The type of all managers of this kind.

    `store` is a URL or an open blocking store. Errors and defaults are those of AsyncJobManager.
    """

    _face: AsyncJobManager

    def __init__(self, store: Store | str, *, ttl: float | None = None, options: Settings | None = None) -> None:
        self._face = _BlockingFace(store, ttl=ttl, options=options)

    @property
    def store(self) -> Store:
        """The store that the jobs live in."""
        return self._face.store

    @property
    def settings(self) -> Settings:
        """The settings that this manager was made with."""
        return self._face.settings

    @property
    def ttl(self) -> float:
        """How many seconds an ended job is kept."""
        return self._face.ttl

    def create_job(
        self,
        job_id: str | None = None,
        job_type: str = "generic",
        metadata: Mapping[str, Any] | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        unique_key: str | None = None,
        stale_after: Duration | None = None,
        on_stale: str | None = None,
        parent_id: str | None = None,
        trace: str | None = None,
    ) -> Job:
        """See AsyncJobManager.create_job."""
        return drive(
            self._face.create_job(
                job_id,
                job_type,
                metadata,
                labels=labels,
                unique_key=unique_key,
                stale_after=stale_after,
                on_stale=on_stale,
                parent_id=parent_id,
                trace=trace,
            )
        )

    def get_job(self, job_id: str) -> Job | None:
        """See AsyncJobManager.get_job."""
        return drive(self._face.get_job(job_id))

    def update_job(
        self,
        job_id: str,
        status: JobStatus | str | None = None,
        progress: float | None = None,
        message: str | None = None,
        error: str | None = None,
        result: Any = None,
    ) -> None:
        """See AsyncJobManager.update_job."""
        drive(self._face.update_job(job_id, status, progress, message, error, result))

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
        """See AsyncJobManager.list_jobs."""
        return drive(
            self._face.list_jobs(
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
        """See AsyncJobManager.delete_job."""
        drive(self._face.delete_job(job_id))

    def find(self, query: Query | None = None, limit: int = LIST_LIMIT, cursor: str | None = None) -> Page:
        """See AsyncJobManager.find."""
        return drive(self._face.find(query, limit, cursor))

    def count_jobs(
        self,
        job_type: str | None = None,
        status: JobStatus | str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        stalled: bool = False,
    ) -> int:
        """See AsyncJobManager.count_jobs."""
        return drive(self._face.count_jobs(job_type, status, labels=labels, stalled=stalled))

    def cancel_job(self, job_id: str, reason: str | None = None, *, by: str | None = None) -> Job:
        """See AsyncJobManager.cancel_job."""
        return drive(self._face.cancel_job(job_id, reason, by=by))

    def retry_job(self, job_id: str, *, only_failed: bool = False) -> Job:
        """See AsyncJobManager.retry_job."""
        return drive(self._face.retry_job(job_id, only_failed=only_failed))

    def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """See AsyncJobManager.events."""
        return drive(self._face.events(job_id, after, limit))

    def watch(self, job_id: str, after: int | None = None) -> Iterator[Event]:
        """See AsyncJobManager.watch."""
        return drive_each(self._face.watch(job_id, after))

    def wait(self, job_id: str, timeout: Duration | None = None) -> Job:
        """See AsyncJobManager.wait."""
        return drive(self._face.wait(job_id, timeout))

    def enqueue(
        self, job_type: str, params: Mapping[str, Any] | None = None, *, job_id: str | None = None, **options: Any
    ) -> Job:
        """See AsyncJobManager.enqueue."""
        return drive(self._face.enqueue(job_type, params, job_id=job_id, **options))

    def track(
        self,
        job_type: str = "generic",
        *,
        key: str | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        parent_id: str | None = None,
        plan: Mapping[str, float] | None = None,
    ) -> Track:
        """See AsyncJobManager.track: ``with manager.track("ingestion") as run``."""
        return Track(self._face._wanted(job_type, key, job_id, metadata, labels, parent_id, plan))

    def close(self) -> None:
        """See AsyncJobManager.close."""
        drive(self._face.close())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.store.url!r})"


class _Jobs(Mapping[str, Job]):
    """The jobs of a store as a read-only mapping of id to Job."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getitem__(self, job_id: str) -> Job:
        job = drive(self._store.get(job_id))
        if job is None:
            raise KeyError(job_id)
        return job

    def __iter__(self) -> Iterator[str]:
        after: Position | None = None
        while batch := drive(self._store.select(Select(), 1000, after)):
            for job in batch:
                yield job.job_id
            after = Position(created(batch[-1]), batch[-1].job_id)

    def __len__(self) -> int:
        return drive(self._store.count(Select())) or 0


class InMemoryJobManager(JobManager):
    """Jobs in the memory of this process, for development: no dependencies, gone with the process."""

    def __init__(self, *, ttl: float | None = None, options: Settings | None = None) -> None:
        super().__init__("memory://", ttl=ttl, options=options)

    @property
    def jobs(self) -> Mapping[str, Job]:
        """All jobs by id; a read-only view."""
        return _Jobs(self.store)


class SQLiteJobManager(JobManager):
    """Jobs in one SQLite file, shared by the processes of one machine."""

    def __init__(self, path: str | os.PathLike[str] = "jobs.db", *, ttl: float | None = None, options: Settings | None = None) -> None:  # fmt: skip
        from milepost.stores.sqlite import SQLiteStore  # where SQLite is not used it is not loaded

        options = options if options is not None else settings.current()
        super().__init__(SQLiteStore(path, namespace=options.namespace), ttl=ttl, options=options)


class RedisJobManager(JobManager):
    """Jobs in Redis or Valkey, shared by workers on many machines."""

    def __init__(
        self, redis_url: str = "redis://localhost:6379/0", *, ttl: float | None = None, options: Settings | None = None
    ) -> None:
        options = options if options is not None else settings.current()
        store = open_store(redis_url, namespace=options.namespace)
        super().__init__(store, ttl=ttl, options=options)


_lock = threading.Lock()
_manager: JobManager | None = None


def get_job_manager() -> JobManager:
    """The manager of this process: MILEPOST_URL, else REDIS_URL, else in memory. The same object at each call."""
    global _manager
    if _manager is None:
        with _lock:
            if _manager is None:
                options = settings.current()
                url = options.url or options.redis_url
                if url is None or url.startswith("memory:"):
                    _manager = InMemoryJobManager(options=options)
                elif url.startswith("sqlite:"):
                    _manager = SQLiteJobManager(url, options=options)
                else:
                    _manager = RedisJobManager(url, options=options)
    return _manager


def _after_fork() -> None:
    """A fork may have copied the lock while another thread held it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
