"""`Client`: the blocking API of AsyncClient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from milepost.client.client import AsyncClient, connection
from milepost.client.transport import BlockingTransport, Transport
from milepost.core.defaults import LIST_LIMIT
from milepost.core.job import Job
from milepost.manager.sync import JobManager
from milepost.query.filters import Filter
from milepost.run.track import Track
from milepost.stores.factory import redact_url
from milepost.stores.query import Page, Query
from milepost.stores.sync_bridge import run_sync
from milepost.worker.registry import JobType, WorkerEntry


class _SyncCore(AsyncClient):
    """AsyncClient over a blocking transport; its coroutines never suspend."""

    _blocking = True

    def _open(self, key: str | None, options: dict[str, Any]) -> Transport:
        return BlockingTransport(httpx.Client(**connection(self.url, key, options)))


class Client(JobManager):
    """The jobs of a server, with the methods of JobManager: ``milepost.Client("http://host:port")``.

    `key` is an API key (default: MILEPOST_KEY); `options` go to httpx.Client.
    """

    _async: _SyncCore

    def __init__(self, url: str, *, key: str | None = None, **options: Any) -> None:
        self._async = _SyncCore(url, key=key, **options)

    @property
    def url(self) -> str:
        """Return the URL of the server."""
        return self._async.url

    def request(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """See AsyncClient.request."""
        return run_sync(self._async.request(method, path, params=params, body=body))

    def find(
        self, query: Query | Filter | str | None = None, limit: int = LIST_LIMIT, cursor: str | None = None
    ) -> Page:
        """See AsyncClient.find."""
        return run_sync(self._async.find(query, limit, cursor))

    def submit(self, job_type: str, params: Mapping[str, Any] | None = None, /, **options: Any) -> Job:
        """See AsyncClient.submit."""
        return run_sync(self._async.submit(job_type, params, **options))

    def job_types(self) -> list[JobType]:
        """See AsyncJobs.job_types."""
        return run_sync(self._async.job_types())

    def set_limit(self, job_type: str, limit: int | None = None, *, paused: bool = False) -> None:
        """See AsyncJobs.set_limit."""
        run_sync(self._async.set_limit(job_type, limit, paused=paused))

    def workers(self) -> list[WorkerEntry]:
        """See AsyncJobs.workers."""
        return run_sync(self._async.workers())

    def track(self, *args: Any, **kwargs: Any) -> Track:
        """See AsyncClient.track; raises InvalidInputError."""
        self._async.track(*args, **kwargs)
        raise AssertionError("AsyncClient.track raises")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({redact_url(self.url)!r})"
