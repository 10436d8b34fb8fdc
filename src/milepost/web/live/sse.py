"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): framing, buffering, and slow
clients.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from milepost.core.errors import StoreError
from milepost.web.http.middleware import TRANSPORT
from milepost.web.security.principals import ANYONE, Principal

log = logging.getLogger("milepost.web.live.sse")
log.addHandler(logging.NullHandler())

KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_SECONDS = 15.0
ALLOWED_SECONDS = 30.0
"""How often a client's permission is checked again: its key may have been revoked or expired."""
SLOW_SECONDS = 10.0
"""A client whose connection accepts no data for this time is disconnected."""
MAX_QUEUED_FRAMES = 64
"""Frames queued for a slow client before those that may be left out are dropped."""
Allowed = Callable[[], Awaitable[bool]]
RETRY = b"retry: 2000\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]


class Frame(NamedTuple):
    """One message, encoded once for all clients. With `always` it is never dropped. `version` is 0 if it is not an
    event of a job.

    `at` is the time of the event, `read` the number of the feed read that delivered it, and `created_at` the creation
    time of the job whose record was checked.
    """

    version: int
    always: bool
    wire: bytes
    kind: str = ""
    at: datetime | None = None
    read: int = 0
    created_at: datetime | None = None


def frame(kind: str, data: bytes, event_id: str | None = None) -> bytes:
    """Return a message as bytes. `data` is one line of JSON."""
    head = b"" if event_id is None else b"id: %s\n" % event_id.encode()
    return b"%sevent: %s\ndata: %s\n\n" % (head, kind.encode(), data)


END = Frame(0, True, frame("end", b"{}"), "end")
CLOSE = Frame(0, True, b"", "close")
"""The server shuts down: the stream ends without an `end` event, so that the client reconnects to another server."""


class StreamClient(Response):
    """One client: a response that streams, its queued frames, and since when its connection accepts no data.

    The response ends when `write` returns, when the client disconnects or loses permission, or when it is abandoned.
    ASGI cannot abort a connection. `milepost serve` passes the transport in the scope. Under another server an abandoned
    client keeps its socket, with at most the server's write buffer, until it disconnects or the server stops waiting.
    """

    def __init__(self, principal: Principal = ANYONE, allowed: Allowed | None = None) -> None:
        super().__init__()
        self.principal = principal
        self._allowed = allowed
        self.loop = asyncio.get_running_loop()
        self.frames: list[Frame] = []
        self.dropped_version = 0
        self.last_sent_at = self.loop.time()
        self.sending_since: float | None = None
        self._writing: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def write(self, send: Send) -> None:
        """Send messages until the stream ends."""
        raise NotImplementedError

    def release(self) -> None:
        """Unsubscribe the client."""

    def push(self, frame: Frame) -> None:
        """Queue a frame. Above the limit, drop frames except those marked `always` and the newest."""
        frames = self.frames
        frames.append(frame)
        if len(frames) > MAX_QUEUED_FRAMES and self.sending_since is not None:
            last = frames[-1]
            kept = [one for one in frames if one.always or one is last]
            if len(kept) < len(frames):
                self.dropped_version = max(one.version for one in frames if not one.always and one is not last)
                self.frames = kept
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take(self) -> list[Frame]:
        """Wait for frames, and return them."""
        if not self.frames:
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        frames, self.frames = self.frames, []
        return frames

    async def send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        """Write to the connection. Waits while its buffer is full."""
        self.sending_since = self.loop.time()
        await send({"type": "http.response.body", "body": body, "more_body": more})
        self.sending_since = None
        self.last_sent_at = self.loop.time()

    def cut(self) -> None:
        """Disconnect a client that has not received everything."""
        if self._transport is None:
            if self.sending_since is not None:
                self.abandon()
        elif self._transport.get_write_buffer_size() > 0:
            self._transport.abort()

    def abandon(self) -> None:
        """End the stream of a client that does not read, and abort its connection if the server lets us."""
        if self._transport is not None:
            self._transport.abort()
        if self._writing is not None:
            self._writing.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond. See Response."""
        try:
            await self._respond(scope, receive, send)
        finally:
            self.release()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._transport = (scope.get("extensions") or {}).get(TRANSPORT)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        work = self._writing = self.loop.create_task(self.write(send))
        gone = self.loop.create_task(_disconnected(receive))
        allowed, refused = self._allowed, False
        try:
            while not refused:
                every = None if allowed is None else ALLOWED_SECONDS
                done, _ = await asyncio.wait((work, gone), timeout=every, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    break
                refused = allowed is not None and not await allowed()
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
        if refused:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        if work.done() and not work.cancelled():
            error = work.exception()
            if isinstance(error, StoreError):
                # The client reconnects, and then gets what it missed, or a 503.
                log.info("stream ended because the store is unavailable: %s", error)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            # A broken connection ends the stream like a closed one.
            if error is not None and not isinstance(error, OSError):
                raise error


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
