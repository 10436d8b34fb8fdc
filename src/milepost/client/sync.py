"""`Client`: the blocking API of AsyncClient."""

from __future__ import annotations

from typing import Any

import httpx

from milepost.client.client import AsyncClient, connection
from milepost.client.transport import BlockingTransport, Transport
from milepost.manager.sync import JobManager
from milepost.run.track import Track
from milepost.stores.factory import redact_url
from milepost.stores.sync_bridge import blocking


class _SyncCore(AsyncClient):
    """AsyncClient over a blocking transport; its coroutines never suspend."""

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

    request = blocking(AsyncClient.request)
    find = blocking(AsyncClient.find)
    submit = blocking(AsyncClient.submit)
    job_types = blocking(AsyncClient.job_types)
    set_limit = blocking(AsyncClient.set_limit)
    workers = blocking(AsyncClient.workers)

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
