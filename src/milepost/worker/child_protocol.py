"""The protocol between a worker and its child process: JSON in frames with a 4-byte length, over one socket.

To the child: ``run`` (a job), ``stop`` (why), ``terminate`` (SIGTERM follows), ``answer`` (to a request). From it: ``ready``
(has the job), ``report``, ``ended``, and the requests ``checkpoint``, ``step``, ``question``, ``questions``, ``budget``,
``children``, ``read``, ``now``. The end of the socket tells each side that the other one is gone.
"""

from __future__ import annotations

import asyncio
import json
import select
import signal
import socket
import struct
import threading
from typing import Any

from milepost.core.errors import (
    JobCancelled,
    JobPaused,
    JobReleased,
    JobSuspended,
    JobTimedOut,
    LeaseLost,
    RunStop,
)

Message = dict[str, Any]

BLOCKED_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
"""Signals that a child is started with as blocked, until it handles them: a supervisor may send them to all processes."""

_LENGTH = struct.Struct("!I")
_STOPS: dict[str, type[RunStop]] = {
    cls.__name__: cls for cls in (JobCancelled, JobPaused, JobReleased, JobTimedOut, LeaseLost)
}


def encode_frame(message: Message) -> bytes:
    """Return a message as a frame."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return _LENGTH.pack(len(body)) + body


def encode_stop(reason: RunStop) -> Message:
    """Return a RunStop as a message."""
    return {"kind": type(reason).__name__, "text": str(reason)}


def decode_stop(message: Message) -> RunStop:
    """Return the RunStop of a message."""
    return _STOPS.get(message["kind"], JobCancelled)(message["text"])


async def read_length(reader: asyncio.StreamReader) -> int:
    """Return the length of the next message. Raises IncompleteReadError at the end."""
    length: int = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0]
    return length


async def read_body(reader: asyncio.StreamReader, length: int) -> Message:
    """Return the message of this length. Raises IncompleteReadError at the end."""
    return _read(await reader.readexactly(length))


def _read(body: bytes) -> Message:
    message: Message = json.loads(body.decode("utf-8", "surrogatepass"))
    return message


def parse_last_message(line: bytes) -> Message:
    """Return the last message of a crashed child; empty if there is none or it is incomplete."""
    try:
        return _read(line)
    except ValueError:
        return {}


class ParentConnection:
    """The child's end of the socket. It blocks, and several threads may send."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message. Raises OSError if the worker is gone."""
        with self._lock:
            self._socket.sendall(encode_frame(message))

    def wait(self, timeout: float) -> bool:
        """Return whether something, or the end, can be read within `timeout` seconds."""
        return bool(select.select([self._socket], [], [], timeout)[0])

    def receive(self) -> Message | None:
        """Return the next message, or None at the end."""
        head = self._exactly(_LENGTH.size)
        if head is None:
            return None
        body = self._exactly(_LENGTH.unpack(head)[0])
        return None if body is None else _read(body)

    def _exactly(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self._socket.recv(size - len(parts))
            except ConnectionError:
                return None
            if not part:
                return None
            parts += part
        return bytes(parts)


def encode_wait(suspended: JobSuspended) -> Message:
    """Return what a suspended run waits for, as JSON types."""
    return {name: getattr(suspended, name) for name in ("wake_at", "asking", "groups", "is_asked_above")}


def decode_wait(message: Message) -> JobSuspended:
    """Return the suspension that `encode_wait` has encoded."""
    is_asked_above = message["is_asked_above"]
    return JobSuspended(message["wake_at"], message["asking"], tuple(message["groups"]), is_asked_above=is_asked_above)
