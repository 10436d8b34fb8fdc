"""The port's wires for threads: a pool of sockets. Owns them; knows no script.

redis-py connects (URL, TLS, users) and its set-up is kept; then bytes go straight to the socket and hiredis reads them.
A pool that finds itself in another process than it was made in forgets its sockets: they belong to the parent.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any

import hiredis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AuthenticationError, RedisError

from milepost.core.errors import InvalidInput, StoreUnavailable
from milepost.stores.redis.links import Dial, Link, LinkDown, Node

READ_SIZE = 65536
IDLE_SECONDS = 1.0
"""A connection unused for longer is looked at before it is used, so that what a restart cut is found before it is sent."""

_NOT_YET = object()
_KERNEL_TIMES_OUT = sys.platform == "linux"


class BlockingLink:
    """One socket, used by one thread at a time."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self._socket: socket.socket = connection._sock
        self._name = name
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._timeout = -1.0
        self._used = time.monotonic()
        self.pid = os.getpid()
        # The kernel's own time limit spares the poll that Python makes before each read and write of a socket with one.
        self._kernel = _KERNEL_TIMES_OUT and not isinstance(self._socket, ssl.SSLSocket)

    async def exchange(self, payload: bytes, replies: int, timeout: float) -> list[Any]:
        reader = self._reader
        try:
            if timeout != self._timeout:
                self._limit(timeout)
            self._socket.sendall(payload)
            read: list[Any] = []
            while True:
                reply = reader.gets()
                if reply is _NOT_YET:
                    data = self._socket.recv(READ_SIZE)
                    if not data:
                        raise LinkDown(f"{self._name} closed the connection")
                    reader.feed(data)
                elif not isinstance(reply, hiredis.PushNotification):
                    read.append(reply)
                    if len(read) == replies:
                        return read
        except (BlockingIOError, TimeoutError):
            raise LinkDown(f"{self._name} gave no answer within {timeout:g} s") from None
        except (OSError, hiredis.ProtocolError) as error:
            raise LinkDown(f"{self._name}: {error}") from None

    def _limit(self, timeout: float) -> None:
        if self._kernel:
            self._socket.settimeout(None)
            limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1_000_000))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        else:
            self._socket.settimeout(timeout)
        self._timeout = timeout

    def rest(self) -> None:
        """Note that nobody uses it."""
        self._used = time.monotonic()

    def is_sound(self) -> bool:
        """Whether it is ours and, when it was idle, nothing came that was not asked for (such as its end)."""
        if self.pid != os.getpid():
            return False
        if time.monotonic() - self._used < IDLE_SECONDS:
            return True
        try:
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            return not poll.poll(0)
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        self._connection.disconnect()


class BlockingWires:
    """Sockets that nobody uses at the moment; as many as there were threads at once."""

    blocking = True

    def __init__(self) -> None:
        self._idle: list[BlockingLink] = []

    async def connect(self, node: Node, options: Mapping[str, Any], tls: bool) -> BlockingLink:
        connection = make(node, options, tls, (Connection, SSLConnection, UnixDomainSocketConnection))
        try:
            connection.connect()
        except AuthenticationError as error:
            raise StoreUnavailable(f"{node} refuses the user or password of the URL: {error}") from None
        except (RedisError, OSError) as error:
            raise LinkDown(f"{node}: {error}") from None
        return BlockingLink(connection, str(node))

    def ready(self) -> Link | None:
        while self._idle:
            try:
                link = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if link.is_sound():
                return link
            link.close()
        return None

    async def take(self, dial: Dial) -> Link:
        return self.ready() or await dial()

    def give(self, link: Link) -> None:
        assert isinstance(link, BlockingLink)
        link.rest()
        self._idle.append(link)

    take_own, give_own = take, give

    def forget(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - this edition never suspends

    async def close(self) -> None:
        self.forget()


def make(node: Node, options: Mapping[str, Any], tls: bool, classes: tuple[Any, Any, Any]) -> Any:
    """A connection of redis-py that is not yet connected. InvalidInput for an option of the URL that it does not know."""
    plain, secure, unix = classes
    try:
        if not node.port:
            return unix(path=node.host, **options)
        return (secure if tls else plain)(host=node.host, port=node.port, **options)
    except TypeError as error:
        raise InvalidInput("url", f"redis-py's Connection does not take its query: {error}") from None
