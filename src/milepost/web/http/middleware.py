"""ASGI middleware: compression, and a limit on the time in which request headers arrive, which uvicorn does not have.

The latter also passes the transport of a connection to the application, which aborts streams whose client does not read.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from importlib import import_module
from typing import Any

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

TRANSPORT = "milepost.transport"
"""The extension of the ASGI scope that contains the transport of the request's connection."""
_CONNECTION: ContextVar[Any] = ContextVar("milepost_connection", default=None)
"""The connection of the current request. uvicorn starts a request in the context in which its data arrived."""


class HeaderTimeoutMiddleware:
    """ASGI middleware that tells the connection of a request that its headers are complete, and passes its transport."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = _CONNECTION.get()
        if scope["type"] != "http" or connection is None:
            await self._app(scope, receive, send)
            return
        connection.request_began()
        try:
            await self._app(
                {**scope, "extensions": {**(scope.get("extensions") or {}), TRANSPORT: connection.own}}, receive, send
            )
        finally:
            connection.request_ended()


def header_timeout_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with a limit on the time until the headers of a request are complete."""
    base: Any = import_module("uvicorn.protocols.http.auto").AutoHTTPProtocol

    class Bounded(base):  # type: ignore[misc]
        """Closes a connection on which no request begins in time."""

        _timer: asyncio.TimerHandle | None = None
        _requests = 0

        def connection_made(self, transport: asyncio.Transport) -> None:
            """See asyncio.Protocol."""
            self.own = transport
            self._start()
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            """See asyncio.Protocol."""
            if not self._requests and self._timer is None:
                self._start()
            token = _CONNECTION.set(self)
            try:
                super().data_received(data)
            finally:
                _CONNECTION.reset(token)

        def connection_lost(self, exc: Exception | None) -> None:
            """See asyncio.Protocol."""
            self._stop()
            super().connection_lost(exc)

        def request_began(self) -> None:
            """Stop the timer: the headers are complete, and the body has its own timeout."""
            self._requests += 1
            self._stop()

        def request_ended(self) -> None:
            """Note that the request was answered; uvicorn closes idle connections."""
            self._requests -= 1

        def _start(self) -> None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.own.close)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    found: type[asyncio.Protocol] = Bounded
    return found


GZIP_LEVEL = 5
GZIP_MINIMUM_BYTES = 1000
_STREAMS = ("/events", "/output")


class Compressed:
    """ASGI middleware that compresses responses, except event streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._plain = app
        self._compressed = GZipMiddleware(app, GZIP_MINIMUM_BYTES, GZIP_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Earlier releases of starlette would buffer a stream to compress it. Without gzip the middleware is only a cost;
        # a cache may give the uncompressed response, which has no Vary, to every client.
        is_plain = scope["type"] != "http" or scope["path"].endswith(_STREAMS) or not _accepts_gzip(scope)
        await (self._plain if is_plain else self._compressed)(scope, receive, send)


def _accepts_gzip(scope: Scope) -> bool:
    return any(name == b"accept-encoding" and b"gzip" in value for name, value in scope["headers"])
