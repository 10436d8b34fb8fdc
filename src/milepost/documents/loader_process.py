"""Loading in a child process, with a limit of time and of memory: parsers hang and die.

Owns the child's life: started at the first file, used for many, killed when it
overstays, replaced when it is gone. Knows no format and no job. The child is a
plain subprocess and no `multiprocessing` one, so it can be had from any process,
daemonic ones included, and never imports the caller's `__main__`.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from milepost.documents.errors import BadDocument
from milepost.documents.formats import MAX_BYTES
from milepost.documents.loaders.piece import LoadReport, Piece, Pieces

_BEGIN: Final = (
    "import sys; parent, memory, *sys.path[:] = sys.argv[1:]; "
    "from milepost.documents.loader_child import main; main(int(parent), int(memory))"
)
_TICK_SECONDS: Final = 0.1
_START_SECONDS: Final = 60.0
_MAX_FRAME: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """What one file may take.

    Seconds for one piece (a page), seconds in all, bytes of address space, bytes of the file itself.
    """

    seconds_per_piece: float = 30.0
    seconds: float = 600.0
    memory_bytes: int = 1536 * 1024 * 1024
    max_bytes: int = MAX_BYTES


class LoaderProcess:
    """Loads files in one child process that is reused and, when it dies, replaced.

    Use it as a context manager, from one thread at a time. `load` has the same
    shape as `milepost.documents.loaders.load` and raises `BadDocument` with three
    more codes: `load_timeout`, `load_crashed`, `out_of_memory`. Leaving a load
    before its end (closing the generator) kills the child; the next load starts another.
    """

    def __init__(self, limits: LoadLimits | None = None) -> None:
        self.limits = limits or LoadLimits()
        self.starts = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._answered = False

    def __enter__(self) -> LoaderProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return self._child.pid if self._child is not None else None

    def close(self) -> None:
        """End the child and free its pipes. The next load would start another."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass

    def load(
        self, path: Path | str, *, encoding: str | None = None, tick: Callable[[], object] | None = None
    ) -> Pieces:
        """Yield the pieces of a document and return its report.

        `tick` is called about ten times a second while the child is waited for, and
        may raise to give up.
        """
        child = self._start()
        finished = False
        try:
            request = {"path": os.path.abspath(path), "encoding": encoding, "max_bytes": self.limits.max_bytes}
            self._request(child, request)
            report = yield from self._replies(child, Path(path).name, tick)
            finished = True
        except BadDocument as bad:
            finished = bad.code not in ("load_timeout", "load_crashed", "out_of_memory")
            raise
        finally:
            if not finished:
                self.close()
        return report

    def _replies(
        self, child: subprocess.Popen[bytes], name: str, tick: Callable[[], object] | None
    ) -> Generator[Piece, None, LoadReport]:
        left = self.limits.seconds
        while True:
            before = time.monotonic()
            patience = self.limits.seconds_per_piece + (0.0 if self._answered else _START_SECONDS)
            late = f"{name}: no page was read in {patience:g} s"
            if left <= patience:
                late = f"{name}: reading it took longer than {self.limits.seconds:g} s"
            frame = self._frame(child, name, late, min(left, patience), tick)
            left -= time.monotonic() - before
            self._answered = True
            if "piece" in frame:
                yield Piece(*frame["piece"])
            elif "report" in frame:
                frame["report"]["warnings"] = tuple(frame["report"]["warnings"])
                return LoadReport(**frame["report"])
            else:
                code, message = frame["error"]
                raise BadDocument(code, message if name in message else f"{name}: {message}")

    def _frame(
        self, child: subprocess.Popen[bytes], name: str, late: str, seconds: float, tick: Callable[[], object] | None
    ) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        head = self._read(child, 4, name, deadline, late, tick)
        (length,) = struct.unpack(">I", head)
        if length > _MAX_FRAME:
            raise BadDocument("load_crashed", f"{name}: the reading process sent nonsense")
        reply: dict[str, Any] = json.loads(self._read(child, length, name, deadline, late, tick))
        return reply

    def _read(
        self,
        child: subprocess.Popen[bytes],
        size: int,
        name: str,
        deadline: float,
        late: str,
        tick: Callable[[], object] | None,
    ) -> bytes:
        assert child.stdout is not None
        descriptor = child.stdout.fileno()
        parts: list[bytes] = []
        with selectors.PollSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while size:
                wait = min(_TICK_SECONDS, deadline - time.monotonic())
                if wait <= 0:
                    raise BadDocument("load_timeout", late)
                if not selector.select(wait):
                    if tick is not None:
                        tick()
                    continue
                part = os.read(descriptor, min(size, 1024 * 1024))
                if not part:
                    raise _death(child, name)
                parts.append(part)
                size -= len(part)
        return b"".join(parts)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        self.starts += 1
        self._answered = False
        self._child = subprocess.Popen(
            [sys.executable, "-c", _BEGIN, str(os.getpid()), str(self.limits.memory_bytes), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"},
        )
        return self._child

    def _request(self, child: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(request).encode("ascii") + b"\n")
        except BrokenPipeError as error:
            raise _death(child, Path(request["path"]).name) from error


def _death(child: subprocess.Popen[bytes], name: str) -> BadDocument:
    """Why the child is gone, as a person can use it."""
    try:
        status = child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return BadDocument("load_crashed", f"{name}: the reading process stopped answering")
    if status == -getattr(signal, "SIGKILL", 9):
        return BadDocument(
            "out_of_memory", f"{name}: the reading process was killed, as the kernel does without memory"
        )
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return BadDocument("load_crashed", f"{name}: the reading process died ({how})")
