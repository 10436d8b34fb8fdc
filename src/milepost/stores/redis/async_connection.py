"""The connection pool for event loops: one connection per loop shared by all tasks, and exclusive ones for waits.

redis-py connects (URL, TLS, users); then this protocol takes over the transport. Requests are sent at once and replies
assigned in the same order, so a cancelled task leaves an unread reply and not a broken connection.

The transport is the one thing that is taken from redis-py by private names (`_writer`, `_reader`). With
`send_packed_command` and a task that awaits `read_response`, 13 awaited writes cost the client 869 us instead of 701, and
the async API would fall below its goal of 0.85 of RQ's rate. A connection could not be aborted then, nor outlive the
cancel of all tasks at the end of `asyncio.run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import hiredis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError

from milepost.stores.redis.connection import Connect, ConnectionLost, Node, RedisConnection, connect_error, make

_NOT_YET = object()


class _PendingRequest:
    """A request with replies outstanding."""

    __slots__ = ("deadline", "future", "missing", "replies")

    def __init__(self, future: asyncio.Future[list[Any]], missing: int, deadline: float) -> None:
        self.future = future
        self.missing = missing
        self.deadline = deadline
        self.replies: list[Any] = []


class AsyncConnection(asyncio.Protocol):
    """One connection of one event loop."""

    def __init__(self, connection: Any, node: Node) -> None:
        self._loop = asyncio.get_running_loop()
        self._writer = connection._writer
        self._connection = connection
        self.node = node
        self._name = str(node)
        self._asked: deque[_PendingRequest] = deque()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport = self._writer.transport
        self._transport.set_protocol(self)
        # redis-py would warn about the transport that we took over, and wait for an end that it cannot see.
        connection._writer = connection._reader = None
        self.pid = os.getpid()
        self.is_up = not self._transport.is_closing()

    async def exchange(self, payload: bytes, replies: int, timeout: float) -> list[Any]:
        if not self.is_up:
            raise ConnectionLost(f"{self._name} closed the connection")
        deadline = self._loop.time() + timeout
        if self._asked:  # a large request before this one may take longer
            deadline = max(deadline, self._asked[-1].deadline)
        asked = _PendingRequest(self._loop.create_future(), replies, deadline)
        self._asked.append(asked)
        self._transport.write(payload)
        if self._watch is None:
            self._watch = self._loop.call_at(asked.deadline, self._check_reply_time)
        return await asked.future

    def _check_reply_time(self) -> None:
        """Close the connection if the oldest request was not answered in time."""
        self._watch = None
        if not self._asked:
            return
        if self._asked[0].deadline <= self._loop.time():
            self._fail(f"{self._name} did not reply in time")
        else:
            self._watch = self._loop.call_at(self._asked[0].deadline, self._check_reply_time)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _NOT_YET:
                if isinstance(reply, hiredis.PushNotification) or not self._asked:
                    continue
                first = self._asked[0]
                first.replies.append(reply)
                first.missing -= 1
                if not first.missing:
                    self._asked.popleft()
                    if not first.future.done():
                        first.future.set_result(first.replies)
        except hiredis.ProtocolError as error:
            self._fail(f"{self._name}: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"{self._name}: {exc}" if exc else f"{self._name} closed the connection")

    def _fail(self, why: str) -> None:
        self.is_up = False
        while self._asked:
            future = self._asked.popleft().future
            if not future.done():
                future.set_exception(ConnectionLost(why))
        self.close()

    def close(self) -> None:
        self.is_up = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._asked:
            self._fail(f"{self._name}: the connection was closed by this client")
        if not self._loop.is_closed():
            self._transport.abort()

    def drop(self) -> None:
        """Close a connection of a closed event loop and release all references to the loop."""
        self.is_up = False
        self._asked.clear()
        sock = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError, RuntimeError):
            if sock is not None:
                sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(RuntimeError):
            self._transport.abort()  # marks itself as closing before it raises that the loop is closed
        del self._loop, self._writer, self._connection, self._transport, self._watch


class _OfLoop:
    """The connections of one event loop."""

    def __init__(self) -> None:
        self.shared: AsyncConnection | None = None
        self.idle: list[AsyncConnection] = []
        self.dialling = asyncio.Lock()
        self.failures = 0
        self.failure = ""
        self.closer: AsyncGenerator[None, None] | None = None

    def links(self) -> list[AsyncConnection]:
        """Return all connections of the loop that are not in exclusive use."""
        return [*self.idle, *([self.shared] if self.shared is not None else [])]


class AsyncConnectionPool:
    """Connections by event loop; those of another running loop or of another process are never touched.

    Each loop has an async generator that closes its connections, because a loop ends its async generators before it is
    closed: so `asyncio.run` leaves no connection open. A loop that was closed without that is found at the next use.
    """

    blocking = False

    def __init__(self) -> None:
        self.only: Node | None = None
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()

    def _here(self) -> _OfLoop:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            self._drop_closed()
            here = self._loops[loop] = _OfLoop()
        return here

    def _drop_closed(self) -> None:
        for reference in self._loops.keyrefs():  # iterating over the dictionary itself fails when a thread adds a loop
            loop = reference()
            closed = self._loops.pop(loop, None) if loop is not None and loop.is_closed() else None
            for link in closed.links() if closed is not None else ():
                if link.pid == os.getpid():
                    link.drop()

    async def _close_with_loop(self) -> AsyncGenerator[None, None]:
        """Suspend until the loop ends its async generators, then close its connections."""
        try:
            yield
        finally:
            await self._end()

    async def _end(self) -> None:
        self.reset()
        self._loops.pop(asyncio.get_running_loop(), None)
        await asyncio.sleep(0)

    async def connect(self, node: Node, options: Mapping[str, Any], tls: bool) -> AsyncConnection:
        here = self._here()
        if here.closer is None:
            here.closer = self._close_with_loop()
            await anext(here.closer)
        connection = make(node, options, tls, (Connection, SSLConnection, UnixDomainSocketConnection))
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        try:
            try:
                await connection.connect()
            finally:
                # redis-py uses asyncio.wait_for, which in Python 3.11 may swallow a cancellation.
                if task is not None and task.cancelling() > before:
                    raise asyncio.CancelledError
        except (RedisError, OSError) as error:
            raise connect_error(node, options.get("db"), error) from None
        except asyncio.CancelledError:
            await connection.disconnect(nowait=True)
            raise
        return AsyncConnection(connection, node)

    def ready(self) -> RedisConnection | None:
        link = self._here().shared
        return link if link is not None and self._may_use(link) else None

    def _may_use(self, link: AsyncConnection) -> bool:
        return link.is_up and link.pid == os.getpid() and (self.only is None or link.node == self.only)

    async def acquire(self, connect_to_master: Connect) -> RedisConnection:
        here = self._here()
        before = here.failures
        async with here.dialling:
            link = self.ready()
            if link is None:
                if here.shared is not None and here.shared.pid == os.getpid():
                    here.shared.close()
                if here.failures != before:  # the attempt that this task waited for counts as its own
                    raise ConnectionLost(here.failure)
                try:
                    link = here.shared = await connect_to_master()  # type: ignore[assignment]
                except ConnectionLost as error:
                    here.failures += 1
                    here.failure = str(error)
                    raise
        return link

    def release(self, link: RedisConnection) -> None:
        """Do nothing; the connection is shared."""

    async def acquire_blocking(self, connect_to_master: Connect) -> RedisConnection:
        idle = self._here().idle
        while idle:
            link = idle.pop()
            if self._may_use(link):
                return link
            if link.pid == os.getpid():
                link.close()
        return await connect_to_master()

    def release_blocking(self, link: RedisConnection) -> None:
        assert isinstance(link, AsyncConnection)
        self._here().idle.append(link)

    def reset(self) -> None:
        here = self._here()
        for link in here.links():
            link.close()
        here.idle.clear()
        here.shared = None

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Close the connections of this loop; those of another loop are closed with it."""
        closer = self._here().closer
        if closer is None:
            await self._end()
        else:
            await closer.aclose()
