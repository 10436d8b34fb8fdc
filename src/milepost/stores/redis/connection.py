"""Connections and pools: their interfaces, and those for threads.

redis-py sends the packed commands and parses the replies. After a fork the child does not use the sockets of its parent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import hiredis
from redis import exceptions
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AuthenticationError, RedisError

from milepost.core.errors import InvalidInputError, StoreUnavailableError
from milepost.stores.redis.scripts import Script

Arg = bytes | str | int | float
"""An argument of a command."""

Call = tuple[Script, Sequence[Arg]]
"""A script and its ARGV."""


class ConnectionLost(Exception):
    """A connection broke, did not reply in time, or could not be made. The text never contains a password."""


class Node(NamedTuple):
    """A server: its host and port, or with port 0 the path of its Unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


class RedisConnection(Protocol):
    """One connection. Replies are hiredis values; an error is returned as a `hiredis.ReplyError`."""

    async def exchange(self, payload: bytes, replies: int, timeout: float) -> list[Any]:
        """Send packed commands and read that many replies, each within `timeout` seconds. Raises ConnectionLost."""

    def close(self) -> None:
        """Close the connection."""


Connect = Callable[[], Awaitable[RedisConnection]]


class ConnectionPool(Protocol):
    """A pool of connections for threads or for event loops."""

    blocking: bool
    only: Node | None
    """The only server whose connections are used, if a Sentinel names it; others are closed."""

    async def connect(self, node: Node, options: Mapping[str, Any], tls: bool) -> RedisConnection:
        """Return a new, authenticated connection. Raises ConnectionLost, or StoreError for a wrong password."""

    def ready(self) -> RedisConnection | None:
        """Return an existing connection for a request that is answered immediately, or None."""

    async def acquire(self, connect_to_master: Connect) -> RedisConnection:
        """Return a connection for a request that is answered immediately; make one if there is none."""

    def release(self, link: RedisConnection) -> None:
        """Return a usable connection to the pool."""

    async def acquire_blocking(self, connect_to_master: Connect) -> RedisConnection:
        """Return a connection for a request that waits; it is exclusive until it is released."""

    def release_blocking(self, link: RedisConnection) -> None:
        """Return a usable exclusive connection to the pool."""

    def reset(self) -> None:
        """Close all current connections; later requests make new ones."""

    async def pause(self, seconds: float) -> None:
        """Wait before a retry."""

    async def close(self) -> None:
        """Close all connections."""


WRITE_SIZE = 256 * 1024
"""Larger requests are sent in parts, because redis-py limits the time for each."""
IDLE_SECONDS = 1.0
"""A connection idle for longer is checked before use, so that one closed by a server restart is detected first."""

CODES = {
    exceptions.AskError: "ASK",
    exceptions.AuthenticationError: "NOAUTH",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ClusterCrossSlotError: "CROSSSLOT",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.MovedError: "MOVED",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.TryAgainError: "TRYAGAIN",
}
"""redis-py takes the code off the text of these errors."""


class SyncConnection:
    """One connection, used by one thread at a time."""

    def __init__(self, connection: Any, node: Node, socket_timeout: float | None) -> None:
        self._connection = connection
        self._socket_timeout = socket_timeout
        self.node = node
        self._used = time.monotonic()
        self.pid = os.getpid()

    async def exchange(self, payload: bytes, replies: int, timeout: float) -> list[Any]:
        try:
            self._connection.send_packed_command(_parts(payload), check_health=False)
            read = [self._reply(timeout) for _ in range(replies)]
            self._used = time.monotonic()
            return read
        except exceptions.TimeoutError:
            raise ConnectionLost(f"{self.node} did not reply within {timeout:g} s") from None
        except RedisError as error:
            raise ConnectionLost(f"{self.node}: {error}") from None

    def _reply(self, timeout: float) -> Any:
        if timeout != self._socket_timeout and not self._connection.can_read(timeout):
            raise exceptions.TimeoutError
        try:
            return self._connection.read_response(disable_decoding=True)
        except RedisError as error:
            return error_reply(error)

    def is_sound(self) -> bool:
        """Return whether it belongs to this process and, if it was idle, has no unexpected data (such as its end)."""
        if self.pid != os.getpid():
            return False
        if time.monotonic() - self._used < IDLE_SECONDS:
            return True
        try:
            return not self._connection.can_read(0)
        except RedisError:
            return False

    def close(self) -> None:
        self._connection.disconnect()


def _parts(payload: bytes) -> list[bytes]:
    if len(payload) <= WRITE_SIZE:
        return [payload]
    return [payload[start : start + WRITE_SIZE] for start in range(0, len(payload), WRITE_SIZE)]


def error_reply(error: RedisError) -> hiredis.ReplyError:
    """Return the error that the server replied, with its code. Raises `error` if the connection failed."""
    code = CODES.get(type(error))
    if code is None and not isinstance(error, exceptions.ResponseError):
        raise error
    return hiredis.ReplyError(f"{code} {error}" if code is not None else str(error))


def connect_error(node: Node, database: int | None, error: RedisError | OSError) -> Exception:
    """Return the error of a connection that was not made; waiting does not mend a wrong password or database."""
    text = str(error)
    if isinstance(error, AuthenticationError):
        return StoreUnavailableError(f"{node} refused the user or password of the URL: {text}", temporary=False)
    if isinstance(error, exceptions.ResponseError) and ("DB index" in text or "SELECT" in text):
        return StoreUnavailableError(f"{node} has no database {database}, which the URL names: {text}", temporary=False)
    return ConnectionLost(f"{node}: {text}")


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
        except (RedisError, OSError) as error:
            raise connect_error(node, options.get("db"), error) from None
        return SyncConnection(connection, node, options.get("socket_timeout"))

    def _take(self) -> SyncConnection | None:
        """Take an idle connection. Another thread may take the last one at the same time."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def ready(self) -> RedisConnection | None:
        while (link := self._take()) is not None:
            if link.is_sound() and (self.only is None or link.node == self.only):
                return link
            link.close()
        return None

    async def acquire(self, connect_to_master: Connect) -> RedisConnection:
        return self.ready() or await connect_to_master()

    def release(self, link: RedisConnection) -> None:
        assert isinstance(link, SyncConnection)
        self._idle.append(link)

    acquire_blocking, release_blocking = acquire, release

    def reset(self) -> None:
        while (link := self._take()) is not None:
            link.close()

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
