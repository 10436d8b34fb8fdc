"""Load files in a child process with limits of time and memory, because parsers hang and crash.

The child is a plain subprocess rather than `multiprocessing`, so it works from daemonic processes and never imports the
caller's `__main__`.
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

from milepost.documents.errors import BadDocumentError
from milepost.documents.file_types import MAX_BYTES
from milepost.documents.loaders import LoadReport, Piece, Pieces

_BEGIN: Final = (
    "import sys; parent, memory, *sys.path[:] = sys.argv[1:]; "
    "from milepost.documents.loader_child import main; main(int(parent), int(memory))"
)
_TICK_SECONDS: Final = 0.1
_START_SECONDS: Final = 60.0
_MAX_FRAME: Final = 64 * 1024 * 1024
_CHARACTERS: Final = 16 * 1024 * 1024
_CHARACTERS_PER_BYTE: Final = 20
_KEPT_VARIABLES: Final = frozenset(
    {"HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONUTF8", "SYSTEMROOT", "TZ"}
)
"""The environment variables that the child inherits. It must not see keys and URLs."""


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """What one file may use.

    Seconds for one piece (a page), seconds in all, bytes of address space, bytes of the file, and characters of its
    text: 20 for each byte, at least 16 Mi and at most `max_characters`.
    """

    seconds_per_piece: float = 30.0
    seconds: float = 600.0
    memory_bytes: int = 1536 * 1024 * 1024
    max_bytes: int = MAX_BYTES
    max_characters: int = 256 * 1024 * 1024

    def characters_for(self, size: int) -> int:
        """Return the maximum number of characters for a file of `size` bytes."""
        return min(self.max_characters, max(_CHARACTERS, _CHARACTERS_PER_BYTE * size))


class LoaderProcess:
    """Loads files in one child process, which is reused and replaced if it dies.

    Use it as a context manager, from one thread at a time. `load` works like `milepost.documents.loaders.load` and
    raises `BadDocumentError` with three more codes: `load_timeout`, `load_crashed`, `out_of_memory`. Closing the
    generator early kills the child; the next load starts another.
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
        """The process id of the child, or None."""
        return self._child.pid if self._child is not None else None

    def close(self) -> None:
        """End the child and close its pipes. The next load starts another."""
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

        `tick` is called about ten times a second while waiting, and may raise to give up.
        """
        child = self._start()
        finished = False
        try:
            request = {
                "path": os.path.abspath(path),
                "encoding": encoding,
                "max_bytes": self.limits.max_bytes,
                "seconds": self.limits.seconds,
            }
            self._request(child, request)
            report = yield from self._bounded(self._replies(child, Path(path).name, tick), Path(path))
            finished = True
        except BadDocumentError as bad:
            finished = bad.code not in ("load_timeout", "load_crashed", "out_of_memory", "text_too_large")
            raise
        finally:
            if not finished:
                self.close()
        return report

    def _bounded(self, pieces: Pieces, path: Path) -> Pieces:
        """Pass on the pieces of a file until they exceed the text limit for its size."""
        left = allowed = self.limits.characters_for(_size(path))
        while True:
            try:
                piece = next(pieces)
            except StopIteration as stop:
                report: LoadReport = stop.value
                return report
            left -= len(piece.text)
            if left < 0:
                raise BadDocumentError(
                    "text_too_large", f"{path.name} contains more than {allowed:,} characters of text"
                )
            yield piece

    def _replies(
        self, child: subprocess.Popen[bytes], name: str, tick: Callable[[], object] | None
    ) -> Generator[Piece, None, LoadReport]:
        left = self.limits.seconds
        while True:
            before = time.monotonic()
            max_wait = self.limits.seconds_per_piece + (0.0 if self._answered else _START_SECONDS)
            late = f"{name}: no page was read in {max_wait:g} s"
            if left <= max_wait:
                late = f"{name}: reading it took longer than {self.limits.seconds:g} s"
            frame = self._frame(child, name, late, min(left, max_wait), tick)
            left -= time.monotonic() - before
            self._answered = True
            if "piece" in frame:
                yield Piece(*frame["piece"])
            elif "report" in frame:
                frame["report"]["warnings"] = tuple(frame["report"]["warnings"])
                return LoadReport(**frame["report"])
            else:
                code, message = frame["error"]
                raise BadDocumentError(code, message if name in message else f"{name}: {message}")

    def _frame(
        self, child: subprocess.Popen[bytes], name: str, late: str, seconds: float, tick: Callable[[], object] | None
    ) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        head = self._read(child, 4, name, deadline, late, tick)
        (length,) = struct.unpack(">I", head)
        if length > _MAX_FRAME:
            raise BadDocumentError("load_crashed", f"{name}: the loader process sent invalid data")
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
                    raise BadDocumentError("load_timeout", late)
                if not selector.select(wait):
                    if tick is not None:
                        tick()
                    continue
                part = os.read(descriptor, min(size, 1024 * 1024))
                if not part:
                    raise _dead_child_error(child, name)
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
            [sys.executable, "-c", _BEGIN, str(os.getpid()), str(self.limits.memory_bytes), *_import_path()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={
                **{name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES},
                "MALLOC_ARENA_MAX": "2",
                "OMP_NUM_THREADS": "1",
            },
        )
        return self._child

    def _request(self, child: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
        assert child.stdin is not None
        try:
            child.stdin.write(json.dumps(request).encode("ascii") + b"\n")
        except BrokenPipeError as error:
            raise _dead_child_error(child, Path(request["path"]).name) from error


def _import_path() -> list[str]:
    """Return the import path with the current folder last, so that its files cannot replace modules."""
    here = os.getcwd()
    return sorted(sys.path, key=lambda folder: os.path.abspath(folder) == here)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _dead_child_error(child: subprocess.Popen[bytes], name: str) -> BadDocumentError:
    """Return the error for a dead child."""
    try:
        status = child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return BadDocumentError("load_crashed", f"{name}: the loader process stopped responding")
    if status == -getattr(signal, "SIGXCPU", 24):
        return BadDocumentError("load_timeout", f"{name}: reading took more processor time than the limit")
    if status == -getattr(signal, "SIGKILL", 9):
        return BadDocumentError(
            "out_of_memory", f"{name}: the loader process was killed, probably because the machine ran out of memory"
        )
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return BadDocumentError("load_crashed", f"{name}: the loader process died ({how})")
