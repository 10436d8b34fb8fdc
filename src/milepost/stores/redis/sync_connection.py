"""The connection pool for threads.

redis-py connects (URL, TLS, users); then requests go directly to the socket and hiredis parses the replies. After a fork
the child does not use the sockets of its parent.
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

from milepost.core.errors import InvalidInputError, StoreUnavailableError
from milepost.stores.redis.connection_protocols import Connect, ConnectionLost, Node, RedisConnection

READ_SIZE = 65536
IDLE_SECONDS = 1.0
"""A connection idle for longer is checked before use, so that one closed by a server restart is detected first."""

_NOT_YET = object()
_KERNEL_TIMES_OUT = sys.platform == "linux"


class SyncConnection:
    """One socket, used by one thread at a time."""

    def __init__(self, connection: Any, node: Node) -> None:
        self._connection = connection
        self._socket: socket.socket = connection._sock
        self.node = node
        self._name = str(node)
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._timeout = -1.0
        self._used = time.monotonic()
        self.pid = os.getpid()
        # With a timeout set in the kernel, Python does not poll before each read and write.
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
                        raise ConnectionLost(f"{self._name} closed the connection")
                    reader.feed(data)
                elif not isinstance(reply, hiredis.PushNotification):
                    read.append(reply)
                    if len(read) == replies:
                        return read
        except (BlockingIOError, TimeoutError):
            raise ConnectionLost(f"{self._name} did not reply within {timeout:g} s") from None
        except (OSError, hiredis.ProtocolError) as error:
            raise ConnectionLost(f"{self._name}: {error}") from None

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
        """Record that the connection is idle from now on."""
        self._used = time.monotonic()

    def is_sound(self) -> bool:
        """Return whether it belongs to this process and, if it was idle, has no unexpected data (such as its end)."""
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


class SyncConnectionPool:
    """Idle connections, as many as there were concurrent threads."""

    blocking = True

    def __init__(self) -> None:
        self.only: Node | None = None
        self._idle: list[SyncConnection] = []

    async def connect(self, node: Node, options: Mapping[str, Any], tls: bool) -> SyncConnection:
        connection = make(node, options, tls, (Connection, SSLConnection, UnixDomainSocketConnection))
        try:
            connection.connect()
        except AuthenticationError as error:
            text = f"{node} refused the user or password of the URL: {error}"
            raise StoreUnavailableError(text, temporary=False) from None
        except (RedisError, OSError) as error:
            raise ConnectionLost(f"{node}: {error}") from None
        return SyncConnection(connection, node)

    def ready(self) -> RedisConnection | None:
        while self._idle:
            try:
                link = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if link.is_sound() and (self.only is None or link.node == self.only):
                return link
            link.close()
        return None

    async def acquire(self, connect_to_master: Connect) -> RedisConnection:
        return self.ready() or await connect_to_master()

    def release(self, link: RedisConnection) -> None:
        assert isinstance(link, SyncConnection)
        link.rest()
        self._idle.append(link)

    acquire_blocking, release_blocking = acquire, release

    def reset(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the blocking pool never suspends

    async def close(self) -> None:
        self.reset()


def make(node: Node, options: Mapping[str, Any], tls: bool, classes: tuple[Any, Any, Any]) -> Any:
    """Return an unconnected redis-py connection. Raises InvalidInputError for an unknown option in the URL."""
    plain, secure, unix = classes
    try:
        if not node.port:
            return unix(path=node.host, **options)
        return (secure if tls else plain)(host=node.host, port=node.port, **options)
    except TypeError as error:
        raise InvalidInputError(
            "url", f"unknown option for redis-py's Connection: {error}; remove it from the query"
        ) from None
