"""Compress responses for clients that accept gzip, except event streams."""

from __future__ import annotations

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

LEVEL = 5
MINIMUM_SIZE = 1000


class Compressed:
    """ASGI middleware that compresses responses, except event streams."""

    def __init__(self, app: ASGIApp) -> None:
        self._plain = app
        self._compressed = GZipMiddleware(app, MINIMUM_SIZE, LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Earlier releases of starlette would buffer a stream to compress it. Without gzip the middleware is only a cost;
        # a cache may give the uncompressed response, which has no Vary, to every client.
        is_plain = scope["type"] != "http" or scope["path"].endswith("/events") or not _accepts_gzip(scope)
        await (self._plain if is_plain else self._compressed)(scope, receive, send)


def _accepts_gzip(scope: Scope) -> bool:
    return any(name == b"accept-encoding" and b"gzip" in value for name, value in scope["headers"])
