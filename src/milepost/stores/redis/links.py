"""What the port asks of a connection, in its two editions, and of those who keep connections. Owns the seam between
`port` and the editions; sends nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from milepost.stores.redis.scripts import Script

Word = bytes | str | int | float
"""A part of a command."""

Call = tuple[Script, Sequence[Word]]
"""A script and its ARGV."""


class LinkDown(Exception):
    """A connection broke, gave no reply in time, or could not be made. Says why, never with a password."""


class Node(NamedTuple):
    """A server: its host and port, or with the port 0 the path of its unix socket."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


class Link(Protocol):
    """One connection. Its replies are values of hiredis; an error is a `hiredis.ReplyError` among them."""

    async def exchange(self, payload: bytes, replies: int, timeout: float) -> list[Any]:
        """Send packed commands and read that many replies, each within `timeout` seconds. Raises LinkDown."""

    def close(self) -> None:
        """End the connection."""


Dial = Callable[[], Awaitable[Link]]


class Wires(Protocol):
    """Keeps connections: for threads, or for event loops."""

    blocking: bool

    async def connect(self, node: Node, options: Mapping[str, Any], tls: bool) -> Link:
        """Make a connection that is authenticated and set up. Raises LinkDown, or StoreError for a wrong password."""

    def ready(self) -> Link | None:
        """A connection for a request that is answered at once, where there is one already."""

    async def take(self, dial: Dial) -> Link:
        """The same, which is made when there is none."""

    def give(self, link: Link) -> None:
        """Bring back a connection that is in order."""

    async def take_own(self, dial: Dial) -> Link:
        """A connection for a request that waits: nobody else's until it is given back."""

    def give_own(self, link: Link) -> None:
        """Bring back a connection that waited and is in order."""

    def forget(self) -> None:
        """Use none of the present connections again."""

    async def pause(self, seconds: float) -> None:
        """Wait before trying again."""

    async def close(self) -> None:
        """End all connections."""
