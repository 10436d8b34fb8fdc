"""The virtual socket pair between a worker and its child process, and the files that it leaves at a crash."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.seams import Waits
from tests.simulation.world import Process

if TYPE_CHECKING:
    from tests.simulation.children import Children

SOCKET_SECONDS = (0.0, 0.002, 0.04)
"""When what was sent is seen on the other side. Less than a worker waits for the last messages after an exit."""
SLOW = 0.2
READ_BYTES = 256 * 1024


class SocketEnd:
    """One end of a socket pair. What is sent arrives in order, also after its sender has ended."""

    peer: SocketEnd

    def __init__(self, children: Children) -> None:
        self.owner: Process | None = None
        """The process that has it; None while it is passed on."""
        self.transport: SocketTransport | None = None
        self._children, self._world = children, children.world
        self._number = children.add(self)
        self._received = bytearray()
        self._waits = Waits(children.world)
        self._is_closed = self._is_at_end = self._was_reset = False
        self._on_the_way = 0
        self._arrives_at = 0

    def fileno(self) -> int:
        return self._number

    def __enter__(self) -> SocketEnd:
        return self

    def __exit__(self, *_: object) -> None:
        if self.owner in (None, self._world.process()):  # else the child has a copy of it
            self.close()

    def sendall(self, data: bytes) -> None:
        """Send data. Raises BrokenPipeError."""
        if self._is_closed or self.peer._is_closed:
            raise BrokenPipeError("Broken pipe")
        self._children.on_message(self, data)

    def transmit(self, data: bytes | None, slow: float | None = None) -> None:
        """Let data arrive, or the end (None), after what was sent before, and with a chance of `slow` later."""
        name = self._world.process().name if self._world.current is not None else "system"
        delay = SOCKET_SECONDS[self._children.choose(f"socket:{name}", len(SOCKET_SECONDS), slow or SLOW)]
        self._arrives_at = max(self._arrives_at, self._world.now + int(delay * 1e6))
        self.peer._on_the_way += 1
        self._world.post(self._arrives_at - self._world.now, partial(self.peer._arrive, data))

    def _arrive(self, data: bytes | None) -> None:
        self._on_the_way -= 1
        if data is None:
            self._is_at_end = True
        else:
            self._received += data
        self._waits.wake_all()
        if self.transport is not None:
            self.transport.wake()

    def connect(self, loop: Any, protocol: Any) -> SocketTransport:
        """Return the transport of an event loop."""
        return SocketTransport(loop, self, protocol)

    def close(self) -> None:
        """Close this end. If something sent to it was not read, the other side gets an error after what it was sent."""
        if not self._is_closed:
            self._is_closed = True
            self.peer._was_reset = bool(self._received or self._on_the_way)
            self.transmit(None)

    def is_readable(self) -> bool:
        """Return whether there is data, or the end."""
        return bool(self._received) or self._is_at_end

    def wait_until_readable(self, timeout: float | None) -> bool:
        """Wait in the current thread; return whether there is data, or the end."""
        return self._waits.wait_until(self.is_readable, timeout)

    def recv(self, size: int) -> bytes:
        """Return data, or nothing at the end. Raises ConnectionResetError."""
        self.wait_until_readable(None)
        data = bytes(self._received[:size])
        del self._received[:size]
        if not data and self._was_reset:
            self._was_reset = False
            raise ConnectionResetError("Connection reset by peer")
        return data


class SocketTransport(asyncio.Transport):
    """The transport of an event loop, which does at errors what that of a selector loop does."""

    def __init__(self, loop: Any, end: SocketEnd, protocol: Any) -> None:
        super().__init__()
        self._loop, self._end, self._protocol = loop, end, protocol
        self._is_closing = self._is_paused = self._was_at_end = False
        end.transport = self
        protocol.connection_made(self)
        self.wake()

    def wake(self) -> None:
        """Read in the event loop."""
        if not self._is_closing and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._read)

    def _read(self) -> None:
        if self._is_closing or self._is_paused or self._was_at_end or not self._end.is_readable():
            return
        try:
            data = self._end.recv(READ_BYTES)
        except ConnectionResetError as error:
            self._force_close(error)
            return
        if data:
            self._protocol.data_received(data)
            self.wake()
            return
        self._was_at_end = True
        if not self._protocol.eof_received():
            self.close()

    def write(self, data: Any) -> None:
        if self._is_closing:
            return
        try:
            self._end.sendall(bytes(data))
        except BrokenPipeError as error:
            self._force_close(error)

    def is_closing(self) -> bool:
        return self._is_closing or self._loop.is_closed()

    def close(self) -> None:
        self._force_close(None)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, error: Exception | None) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._close_socket, error)

    def _close_socket(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)
        self._end.close()

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self.wake()


class VirtualFile:
    """A file without a name, which a child gets as well."""

    def __init__(self, children: Children) -> None:
        self._number = children.add(self)
        self._data = bytearray()
        self._place = 0

    def fileno(self) -> int:
        return self._number

    def seek(self, place: int) -> None:
        self._place = place

    def read(self, size: int) -> bytes:
        return bytes(self._data[self._place : self._place + size])

    def readline(self, size: int) -> bytes:
        return self.read(size).partition(b"\n")[0]

    def write_at(self, data: bytes, place: int) -> None:
        self._data[place : place + len(data)] = data

    def truncate(self, size: int) -> None:
        del self._data[size:]

    def __enter__(self) -> VirtualFile:
        return self

    def __exit__(self, *_: object) -> None:
        pass
