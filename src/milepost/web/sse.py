"""Server-sent events on the wire, and a client that reads them: frames, the waiting, the end. Owns the bytes of the
protocol (https://html.spec.whatwg.org/multipage/server-sent-events.html) and what a slow reader may cost; knows no job.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from starlette.types import Receive, Send

from milepost.core.errors import StoreError

log = logging.getLogger("milepost.web.sse")
log.addHandler(logging.NullHandler())

KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_SECONDS = 15.0
ALLOWED_SECONDS = 30.0
"""How often it is asked whether a client may still listen: its key may be revoked, or have expired."""
SLOW_SECONDS = 10.0
"""A reader whose connection has taken nothing for so long is closed."""
BACKLOG = 64
"""Frames that wait for a reader before those that may be left out are."""
Allowed = Callable[[], Awaitable[bool]]
RETRY = b"retry: 2000\n\n"
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
]


class Frame(NamedTuple):
    """One message, encoded once for all who read it. `always`: never left out. `version` 0: not an event of a job."""

    version: int
    always: bool
    wire: bytes
    kind: str = ""


def frame(kind: str, data: bytes, event_id: str | int | None = None) -> bytes:
    """The bytes of a message; `data` is one line of JSON."""
    head = b"" if event_id is None else b"id: %s\n" % str(event_id).encode()
    return b"%sevent: %s\ndata: %s\n\n" % (head, kind.encode(), data)


END = Frame(0, True, frame("end", b"{}"), "end")
CLOSE = Frame(0, True, b"", "close")
"""The server goes away: the stream just ends, and the client comes back to another."""


class Reader:
    """One client: what waits for it, and since when its connection has been taking nothing."""

    __slots__ = ("_waiter", "frames", "heard_at", "left_out", "loop", "sending_since", "task", "transport")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.frames: list[Frame] = []
        self.left_out = 0
        self.heard_at = loop.time()
        self.sending_since: float | None = None
        self.task: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None

    def push(self, frame: Frame) -> None:
        """Let a frame wait for the client; beyond the backlog, keep those that must not be left out and the newest."""
        frames = self.frames
        frames.append(frame)
        if len(frames) > BACKLOG and self.sending_since is not None:
            last = frames[-1]
            kept = [one for one in frames if one.always or one is last]
            if len(kept) < len(frames):
                self.left_out = max(one.version for one in frames if not one.always and one is not last)
                self.frames = kept
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take(self) -> list[Frame]:
        """What waits, as soon as something does."""
        if not self.frames:
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        frames, self.frames = self.frames, []
        return frames

    async def send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        """Write to the connection, which waits while its buffer is full."""
        self.sending_since = self.loop.time()
        await send({"type": "http.response.body", "body": body, "more_body": more})
        self.sending_since = None
        self.heard_at = self.loop.time()

    def cut(self) -> None:
        """Cut the connection of a client that has not taken what was sent to it."""
        if self.transport is not None and self.transport.get_write_buffer_size() > 0:
            self.transport.abort()

    def abandon(self) -> None:
        """Give a client up that does not read: its task ends, its connection is cut with what it has not taken."""
        if self.transport is not None:
            self.transport.abort()
        if self.task is not None:
            self.task.cancel()


async def hold(
    receive: Receive,
    send: Send,
    reader: Reader,
    write: Callable[[Send], Coroutine[Any, Any, None]],
    allowed: Allowed | None = None,
) -> None:
    """Answer with a stream: `write` sends until it has done, the client leaves or may listen no more, or the reader is
    abandoned."""
    reader.transport = transport_of(receive) or transport_of(send)
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
            # Ended as by a cut: the client comes again, and is told what it has missed or that the store is away.
            log.info("a stream ends, its store cannot answer: %s", error)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        # A connection that breaks while it is written to has ended, like one that is closed.
        if error is not None and not isinstance(error, OSError):
            raise error


def transport_of(call: Any, depth: int = 8) -> asyncio.Transport | None:
    """The connection behind an ASGI callable of uvicorn, also through the functions that middlewares wrap around it.

    ASGI has no word for cutting a connection, and one whose client never reads would hold its memory, and the server's
    shutdown, for ever. None where it cannot be found: then such a client is closed without a cut.
    """
    transport = getattr(getattr(call, "__self__", None), "transport", None)
    if isinstance(transport, asyncio.Transport):
        return transport
    for cell in (getattr(call, "__closure__", None) or ()) if depth else ():
        inner = cell.cell_contents
        found = transport_of(inner, depth - 1) if callable(inner) else None
        if found is not None:
            return found
    return None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
