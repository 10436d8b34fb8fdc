"""Child processes of a worker, seen from the worker: spawned, spoken to, told to stop, killed, seen to have died.

Owns the processes and the pool of idle ones; knows no store and no way in which a job ends. They are spawned by the
thread of the worker's event loop, because Linux ties the parent-death signal to the thread that created a process.
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

from milepost.worker.wire import Message, frame, read_message, read_words

JOBS_PER_CHILD = 100
IDLE_SECONDS = 60.0
DRAIN_SECONDS = 0.1
FAULT_BYTES = 16_384
WORDS_BYTES = 1024 * 1024


class Death(NamedTuple):
    """How a child has died. Memory in bytes."""

    signal: str | None
    code: int | None
    peak_memory: int | None
    traceback: str
    words: Message
    """What its run said last: stage, item and log lines; empty when it said nothing."""

    def __str__(self) -> str:
        if self.signal is None:
            return f"the process ended with exit code {self.code}"
        if self.signal == "SIGKILL":
            peak = f", which had used up to {self.peak_memory // 2**20} MiB" if self.peak_memory else ""
            return f"the process was killed by SIGKILL (by hand, or out of memory{peak})"
        return f"the process ended by {self.signal}"


class ChildProcess:
    """One child process; it runs one job at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.jobs = 0
        self.idle_since = 0.0
        self.was_signalled = False
        self.was_killed = False
        self.died: asyncio.Future[Death] = loop.create_future()
        self._loop = loop
        self._faults: IO[bytes] = tempfile.TemporaryFile(prefix="milepost-")  # noqa: SIM115 - closed at its death
        self._words: IO[bytes] = tempfile.TemporaryFile(prefix="milepost-")  # noqa: SIM115 - closed at its death
        self._end, theirs = socket.socketpair()
        with theirs:
            keep = (theirs.fileno(), self._faults.fileno(), self._words.fileno())
            command = [sys.executable, "-m", "milepost.worker.child", *map(str, keep), str(os.getpid())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=keep, process_group=0)
        self.pid = self._process.pid
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        threading.Thread(target=self._wait, name=f"milepost-child-{self.pid}", daemon=True).start()

    async def connect(self) -> None:
        """Be able to send and receive."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(sock=self._end)

    def send(self, message: Message) -> None:
        """Send a message; that the child has died shows when receiving."""
        assert self._writer is not None, "connect first"
        self._writer.write(frame(message))

    async def receive(self) -> Message | None:
        """The next message; None when there are no more, because the child ends."""
        assert self._reader is not None, "connect first"
        return await read_message(self._reader)

    def terminate(self) -> None:
        """Ask the child and all that it has started to end."""
        self.was_signalled = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the child and all that it has started, now."""
        self.was_killed = True
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Let an idle child end: it ends when its socket does."""
        if self._writer is not None:
            self._writer.close()
        else:
            self._end.close()

    def _signal(self, number: signal.Signals) -> None:
        if not self.died.done():
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass  # it has just died, and its waiting thread will say so

    def _wait(self) -> None:
        """Wait for the end of the child, end what is left of its group, and only then free its pid."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # nothing is left of it but the child itself
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code
        with self._faults, self._words:
            self._faults.seek(0)
            trace = self._faults.read(FAULT_BYTES).decode("utf-8", "replace")
            self._words.seek(0)
            words = self._words.readline(WORDS_BYTES)
        scale = 1 if sys.platform == "darwin" else 1024
        name = signal.Signals(-code).name if code < 0 else None
        death = Death(name, code if code >= 0 else None, usage.ru_maxrss * scale, trace, read_words(words))
        try:
            self._loop.call_soon_threadsafe(self._on_death, death)
        except RuntimeError:
            pass  # the worker has ended before its child

    def _on_death(self, death: Death) -> None:
        if not self.died.done():
            self.died.set_result(death)

    def hang_up(self) -> None:
        """Read no more of what it said."""
        if self._writer is not None:
            self._writer.transport.abort()
        else:
            self._end.close()


class Children:
    """The idle child processes of a worker. A child is given up after 100 jobs, or a minute without one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._idle: list[ChildProcess] = []
        self._all: set[ChildProcess] = set()
        self._closed = False

    def take(self, *, fresh: bool) -> ChildProcess:
        """A child for a job: an idle one, or a new one. OSError when the system gives none."""
        while self._idle and not fresh:
            child = self._idle.pop()
            if not child.died.done():
                return child
        child = ChildProcess(self._loop)
        self._all.add(child)
        # What it still said is read first; a grandchild may hold the socket open for ever.
        child.died.add_done_callback(lambda _: self._loop.call_later(DRAIN_SECONDS, self._hang_up, child))
        return child

    def _hang_up(self, child: ChildProcess) -> None:
        child.hang_up()
        self._all.discard(child)

    def give_back(self, child: ChildProcess, *, reuse: bool) -> None:
        """The child has done a job."""
        child.jobs += 1
        if not reuse or self._closed or child.jobs >= JOBS_PER_CHILD:
            child.close()
            return
        child.idle_since = time.monotonic()
        self._idle.append(child)
        self._loop.call_later(IDLE_SECONDS + 1, self._let_go)

    def _let_go(self) -> None:
        old = [child for child in self._idle if time.monotonic() - child.idle_since > IDLE_SECONDS]
        for child in old:
            self._idle.remove(child)
            child.close()

    async def close(self, within: float) -> None:
        """Let all children end; kill those that have not within so many seconds."""
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
        await asyncio.sleep(0)  # in which their sockets are closed

    def _living(self) -> list[ChildProcess]:
        return [child for child in self._all if not child.died.done()]

    async def _deaths(self, within: float) -> None:
        if living := self._living():
            await asyncio.wait([child.died for child in living], timeout=within)
