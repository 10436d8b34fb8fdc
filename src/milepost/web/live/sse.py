"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html): framing, buffering, and slow
clients.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, NamedTuple

from starlette.types import Receive, Scope, Send

from milepost.core.errors import StoreError
from milepost.web.http.header_timeout import TRANSPORT

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


class Reader:
    """One client: its queued frames, and since when its connection accepts no data."""

    __slots__ = ("_waiter", "dropped_version", "frames", "last_sent_at", "loop", "sending_since", "task", "transport")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.frames: list[Frame] = []
        self.dropped_version = 0
        self.last_sent_at = loop.time()
        self.sending_since: float | None = None
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None

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
        if self.transport is None:
            if self.sending_since is not None:
                self.abandon()
        elif self.transport.get_write_buffer_size() > 0:
            self.transport.abort()

    def abandon(self) -> None:
        """End the stream of a client that does not read, and abort its connection if the server lets us."""
        if self.transport is not None:
            self.transport.abort()
        if self.task is not None:
            self.task.cancel()


async def stream_response(
    scope: Scope,
    receive: Receive,
    send: Send,
    reader: Reader,
    write: Callable[[Send], Coroutine[Any, Any, None]],
    allowed: Allowed | None = None,
) -> None:
    """Respond with a stream until `write` returns, the client disconnects or loses permission, or the reader is
    abandoned.

    ASGI cannot abort a connection. `milepost serve` passes the transport in the scope. Under another server an abandoned
    client keeps its socket, with at most the server's write buffer, until it disconnects or the server stops waiting.
    """
    reader.transport = (scope.get("extensions") or {}).get(TRANSPORT)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    work = reader.loop.create_task(write(send))
    reader.task = work
    gone = reader.loop.create_task(_disconnected(receive))
    refused = False
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
