"""The child processes of a worker: spawned, reused, signalled and reaped.

They are spawned by the thread of the event loop, because Linux ties the parent-death signal to the thread that created
a process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, NamedTuple

from milepost.worker.child_protocol import (
    BLOCKED_SIGNALS,
    Message,
    encode_frame,
    parse_last_message,
    read_body,
    read_length,
)

JOBS_PER_CHILD = 100
IDLE_SECONDS = 60.0
DRAIN_SECONDS = 0.1
CRASH_TRACE_BYTES = 16_384
LAST_MESSAGE_BYTES = 1024 * 1024


class ChildExit(NamedTuple):
    """How a child process ended. Memory is in bytes."""

    signal: str | None
    code: int | None
    peak_memory: int | None
    traceback: str
    last_message: Message
    """The last message about its run: stage, item and log lines; empty if there was none."""

    def __str__(self) -> str:
        if self.signal is None:
            return f"the process ended with exit code {self.code}"
        if self.signal == "SIGKILL":
            peak = f", which had used up to {self.peak_memory // 2**20} MiB" if self.peak_memory else ""
            return f"the process was killed by SIGKILL (by hand, or out of memory{peak})"
        return f"the process ended by {self.signal}"


class ChildProcess:
    """A child process, which runs one job at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.jobs = 0
        self.idle_since = 0.0
        self.was_signalled = False
        self.was_killed = False
        self.died: asyncio.Future[ChildExit] = loop.create_future()
        self._loop = loop
        self._crash_trace: IO[bytes] = tempfile.TemporaryFile(prefix="milepost-")  # noqa: SIM115 - closed at its death
        self._last_message: IO[bytes] = tempfile.TemporaryFile(prefix="milepost-")  # noqa: SIM115 - closed at its death
        self._end, theirs = socket.socketpair()
        with theirs:
            keep = (theirs.fileno(), self._crash_trace.fileno(), self._last_message.fileno())
            command = [sys.executable, "-P", "-m", "milepost.worker.child_main", *map(str, keep), str(os.getpid())]
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_SIGNALS)
            try:
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=keep, process_group=0)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.pid = self._process.pid
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._length: int | None = None
        """The length of the message that is being received."""
        try:
            threading.Thread(target=self._wait, name=f"milepost-child-{self.pid}", daemon=True).start()
        except RuntimeError as error:  # the system may refuse a thread, too
            self._end.close()
            self._process.kill()
            self._process.wait()
            raise OSError(f"no thread for the child process: {error}") from error

    async def connect(self) -> None:
        """Open the connection for `send` and `receive`."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(sock=self._end)

    def send(self, message: Message) -> None:
        """Send a message. If the child has died, `receive` tells."""
        assert self._writer is not None, "connect first"
        self._writer.write(encode_frame(message))

    async def receive(self) -> Message | None:
        """Return the next message, or None when the child has ended. If this is cancelled, the next call returns it."""
        assert self._reader is not None, "connect first"
        try:
            if self._length is None:
                self._length = await read_length(self._reader)
            message = await read_body(self._reader, self._length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._length = None
        return message

    async def death(self) -> ChildExit:
        """Wait for the end of the child. A cancel of the caller must not cancel `died`."""
        return await asyncio.shield(self.died)

    def terminate(self) -> None:
        """Send SIGTERM to the child and all that it has started. The child ignores one that is not announced."""
        self.was_signalled = True
        self.send({"do": "terminate"})
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the child and all that it has started."""
        self.was_killed = True
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Let an idle child end: it does so when its socket is closed."""
        if self._writer is not None:
            self._writer.close()
        else:
            self._end.close()

    def _signal(self, number: signal.Signals) -> None:
        if not self.died.done():
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass  # it has just died; its waiting thread reports that

    def _wait(self) -> None:
        """Wait for the end of the child, kill the rest of its process group, and only then free its pid."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # the child left no other process
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code
        with self._crash_trace, self._last_message:
            self._crash_trace.seek(0)
            trace = self._crash_trace.read(CRASH_TRACE_BYTES).decode("utf-8", "replace")
            self._last_message.seek(0)
            last_message = self._last_message.readline(LAST_MESSAGE_BYTES)
        scale = 1 if sys.platform == "darwin" else 1024
        name = signal.Signals(-code).name if code < 0 else None
        death = ChildExit(
            name, code if code >= 0 else None, usage.ru_maxrss * scale, trace, parse_last_message(last_message)
        )
        try:
            self._loop.call_soon_threadsafe(self._on_death, death)
        except RuntimeError:
            pass  # the worker ended before its child

    def _on_death(self, death: ChildExit) -> None:
        if not self.died.done():
            self.died.set_result(death)

    def hang_up(self) -> None:
        """Close the connection without reading the rest."""
        if self._writer is not None:
            self._writer.transport.abort()
        else:
            self._end.close()


class ProcessPool:
    """The idle child processes of a worker. A child ends after 100 jobs, or a minute without one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._idle: list[ChildProcess] = []
        self._all: set[ChildProcess] = set()
        self._closed = False

    def take(self, *, fresh: bool) -> ChildProcess:
        """Return a child for a job: an idle one, or a new one. Raises OSError if no process can be created."""
        while self._idle and not fresh:
            child = self._idle.pop()
            if not child.died.done():
                return child
        child = ChildProcess(self._loop)
        self._all.add(child)
        # Remaining messages are read first; a grandchild may keep the socket open.
        child.died.add_done_callback(lambda _: self._loop.call_later(DRAIN_SECONDS, self._hang_up, child))
        return child

    def _hang_up(self, child: ChildProcess) -> None:
        child.hang_up()
        self._all.discard(child)

    def release(self, child: ChildProcess, *, reuse: bool) -> None:
        """Take back a child that has done a job."""
        child.jobs += 1
        if not reuse or self._closed or child.jobs >= JOBS_PER_CHILD:
            child.close()
            return
        child.idle_since = time.monotonic()
        self._idle.append(child)
        self._loop.call_later(IDLE_SECONDS + 1, self._close_idle)

    def _close_idle(self) -> None:
        old = [child for child in self._idle if time.monotonic() - child.idle_since > IDLE_SECONDS]
        for child in old:
            self._idle.remove(child)
            child.close()

    async def close(self, within: float) -> None:
        """End all children, and kill those that have not ended within some seconds."""
        self._closed = True
        for child in self._idle:
            child.close()
        self._idle.clear()
        await self._deaths(within)
        for child in self._living():
            child.kill()
        await self._deaths(within)
        for child in tuple(self._all):
            self._hang_up(child)
        await asyncio.sleep(0)  # lets their sockets close

    def _living(self) -> list[ChildProcess]:
        return [child for child in self._all if not child.died.done()]

    async def _deaths(self, within: float) -> None:
        if living := self._living():
            await asyncio.wait([child.died for child in living], timeout=within)
