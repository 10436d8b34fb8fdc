"""The port's wires for event loops: one connection a loop that all tasks share, and others for those who wait. Owns
them; knows no script.

redis-py connects (URL, TLS, users); then this protocol takes over the transport. Requests go out as they come and
replies are handed out in that order, so a task that is cancelled leaves a reply that nobody reads, not a broken
connection.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import hiredis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AuthenticationError, RedisError

from milepost.core.errors import StoreUnavailable
from milepost.stores.redis.blocking import make
from milepost.stores.redis.links import Dial, Link, LinkDown, Node

_NOT_YET = object()


class _Asked:
    """A request whose replies are not all there."""

    __slots__ = ("deadline", "future", "missing", "replies")

    def __init__(self, future: asyncio.Future[list[Any]], missing: int, deadline: float) -> None:
        self.future = future
        self.missing = missing
        self.deadline = deadline
        self.replies: list[Any] = []


class AsyncLink(asyncio.Protocol):
    """One connection of one event loop."""

    def __init__(self, connection: Any, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._writer = connection._writer
        self._connection = connection
        self._name = name
        self._asked: deque[_Asked] = deque()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport = self._writer.transport
        self._transport.set_protocol(self)
        # The transport is ours now: redis-py would warn about it, and wait for an end that it cannot see.
        connection._writer = connection._reader = None
        self.pid = os.getpid()
        self.is_up = not self._transport.is_closing()

    async def exchange(self, payload: bytes, replies: int, timeout: float) -> list[Any]:
        if not self.is_up:
            raise LinkDown(f"{self._name} closed the connection")
        asked = _Asked(self._loop.create_future(), replies, self._loop.time() + timeout)
        self._asked.append(asked)
        self._transport.write(payload)
        if self._watch is None:
            self._watch = self._loop.call_at(asked.deadline, self._look)
        return await asked.future

    def _look(self) -> None:
        """Give up on a server that has not answered in time; requests come in order, the first is the oldest."""
        self._watch = None
        if not self._asked:
            return
        if self._asked[0].deadline <= self._loop.time():
            self._fail(f"{self._name} gave no answer in time")
        else:
            self._watch = self._loop.call_at(self._asked[0].deadline, self._look)

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
                future.set_exception(LinkDown(why))
        self.close()

    def close(self) -> None:
        self.is_up = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._asked:
            self._fail(f"{self._name}: the connection was closed here")
        if not self._loop.is_closed():
            self._transport.abort()


class _OfLoop:
    """The connections of one event loop."""

    def __init__(self) -> None:
        self.shared: AsyncLink | None = None
        self.idle: list[AsyncLink] = []
        self.dialling = asyncio.Lock()
        self.failures = 0
        self.failure = ""


class AsyncWires:
    """Connections by event loop; those of another loop or process are never touched."""

    blocking = False

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _OfLoop] = WeakKeyDictionary()

    def _here(self) -> _OfLoop:
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            here = self._loops[loop] = _OfLoop()
        return here

    async def connect(self, node: Node, options: Mapping[str, Any], tls: bool) -> AsyncLink:
        connection = make(node, options, tls, (Connection, SSLConnection, UnixDomainSocketConnection))
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        try:
            try:
                await connection.connect()
            finally:
                # redis-py uses asyncio.wait_for, which in Python 3.11 may swallow a cancel: then it is still to be obeyed.
                if task is not None and task.cancelling() > before:
                    raise asyncio.CancelledError
        except AuthenticationError as error:
            raise StoreUnavailable(f"{node} refuses the user or password of the URL: {error}") from None
        except (RedisError, OSError) as error:
            raise LinkDown(f"{node}: {error}") from None
        except asyncio.CancelledError:
            connection._close()
            raise
        return AsyncLink(connection, str(node))

    def ready(self) -> Link | None:
        link = self._here().shared
        return link if link is not None and link.is_up and link.pid == os.getpid() else None

    async def take(self, dial: Dial) -> Link:
        here = self._here()
        before = here.failures
        async with here.dialling:
            link = self.ready()
            if link is None:
                if here.failures != before:  # what was waited for has failed, and is everybody's trial
                    raise LinkDown(here.failure)
                try:
                    link = here.shared = await dial()  # type: ignore[assignment]
                except LinkDown as error:
                    here.failures += 1
                    here.failure = str(error)
                    raise
        return link

    def give(self, link: Link) -> None:
        """Nothing to do: it is shared."""

    async def take_own(self, dial: Dial) -> Link:
        idle = self._here().idle
        while idle:
            link = idle.pop()
            if link.is_up and link.pid == os.getpid():
                return link
        return await dial()

    def give_own(self, link: Link) -> None:
        assert isinstance(link, AsyncLink)
        self._here().idle.append(link)

    def forget(self) -> None:
        here = self._here()
        for link in [*here.idle, *([here.shared] if here.shared is not None else [])]:
            link.close()
        here.idle.clear()
        here.shared = None

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """End those of this loop; another loop's are ended with it."""
        self.forget()
        self._loops.pop(asyncio.get_running_loop(), None)
        await asyncio.sleep(0)
