"""Client: AsyncClient for code that blocks, one line a method. Owns no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from milepost.client.asynchronous import AsyncClient, connection
from milepost.client.port import BlockingPort, Port
from milepost.core.defaults import LIST_LIMIT
from milepost.core.job import Job
from milepost.manager.synchronous import JobManager
from milepost.stores.driving import drive
from milepost.stores.filters import Filter
from milepost.stores.query import Page, Query
from milepost.tracking.block import Track
from milepost.worker.published import JobType, WorkerEntry


class _BlockingFace(AsyncClient):
    """The same calls over a port that blocks: none of them ever suspends."""

    _blocking = True

    def _open(self, key: str | None, options: dict[str, Any]) -> Port:
        return BlockingPort(httpx.Client(**connection(self.url, key, options)))


class Client(JobManager):
    """The jobs of a server, with the methods of JobManager: ``milepost.Client("http://host:port")``.

    `key` is an API key (default: MILEPOST_KEY); `options` go to httpx.Client.
    """

    _face: _BlockingFace

    def __init__(self, url: str, *, key: str | None = None, **options: Any) -> None:
        self._face = _BlockingFace(url, key=key, **options)

    @property
    def url(self) -> str:
        """The address of the server."""
        return self._face.url

    def request(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """See AsyncClient.request."""
        return drive(self._face.request(method, path, params=params, body=body))

    def find(
        self, query: Query | Filter | str | None = None, limit: int = LIST_LIMIT, cursor: str | None = None
    ) -> Page:
        """See AsyncClient.find."""
        return drive(self._face.find(query, limit, cursor))

    def submit(self, job_type: str, params: Mapping[str, Any] | None = None, /, **options: Any) -> Job:
        """See AsyncClient.submit."""
        return drive(self._face.submit(job_type, params, **options))

    def job_types(self) -> list[JobType]:
        """See AsyncJobs.job_types."""
        return drive(self._face.job_types())

    def set_limit(self, job_type: str, limit: int | None = None, *, paused: bool = False) -> None:
        """See AsyncJobs.set_limit."""
        drive(self._face.set_limit(job_type, limit, paused=paused))

    def workers(self) -> list[WorkerEntry]:
        """See AsyncJobs.workers."""
        return drive(self._face.workers())

    def track(self, *args: Any, **kwargs: Any) -> Track:
        """See AsyncClient.track: raises InvalidInput."""
        self._face.track(*args, **kwargs)
        raise AssertionError("the face refuses")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"
