"""The words between a worker and its child process: JSON in frames of a 4-byte length, over one socket. Owns the framing;
knows no job.

To the child: ``run`` (a job), ``stop`` (why), ``answer`` (to a checkpoint). From it: ``ready``, ``report``,
``checkpoint``, ``ended``. The socket is the death pipe too: who reads its end knows that the other side is gone.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import struct
import threading
from typing import Any

from milepost.core.errors import JobCancelled, JobReleased, JobTimedOut, LeaseLost, Stop

Message = dict[str, Any]

_LENGTH = struct.Struct("!I")
_STOPS: dict[str, type[Stop]] = {cls.__name__: cls for cls in (JobCancelled, JobReleased, JobTimedOut, LeaseLost)}


def frame(message: Message) -> bytes:
    """A message as it goes over the socket."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return _LENGTH.pack(len(body)) + body


def stop_words(reason: Stop) -> Message:
    """A Stop as a message."""
    return {"kind": type(reason).__name__, "text": str(reason)}


def stop_of(message: Message) -> Stop:
    """The Stop of a message."""
    return _STOPS.get(message["kind"], JobCancelled)(message["text"])


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None at the end."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return _read(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _read(body: bytes) -> Message:
    message: Message = json.loads(body.decode("utf-8", "surrogatepass"))
    return message


def read_words(line: bytes) -> Message:
    """The last words of a child; empty when there are none, or they were cut off by its death."""
    try:
        return _read(line)
    except ValueError:
        return {}


class Line:
    """The child's end of the socket: blocking, and safe to send from several threads."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message. OSError when the other side is gone."""
        with self._lock:
            self._socket.sendall(frame(message))

    def wait(self, timeout: float) -> bool:
        """Whether something can be read within `timeout` seconds, the end included."""
        return bool(select.select([self._socket], [], [], timeout)[0])

    def receive(self) -> Message | None:
        """The next message; None at the end."""
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
