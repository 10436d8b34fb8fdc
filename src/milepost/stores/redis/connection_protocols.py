"""The interfaces of connections and connection pools, blocking and async, that the client uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

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
