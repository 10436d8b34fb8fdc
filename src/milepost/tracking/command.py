"""`run.command`: a program as part of a run. Owns its process group, and what its output says: lines for the log, and how
far it is; knows no store.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from milepost.core.defaults import GRACE
from milepost.core.errors import InvalidInput, Stop
from milepost.tracking.stages import LiveStage

LOOKS = 0.1
"""Seconds between two looks at whether the run is to stop."""
READ_SIZE = 65_536
LINE_MOST = 64 * 1024
LINES_KEPT = 20
_LINE = re.compile(rb"[\r\n]+")


class Speaks(Protocol):
    """What a command needs of its run."""

    stops: list[Stop]

    def check(self) -> None: ...
    def log(self, text: str, level: str = "info") -> None: ...
    def stage(self, name: str, *, weight: float | None = None, total: float | None = None, unit: str = "item") -> LiveStage: ...  # fmt: skip


class Commands:
    """The commands of a Run."""

    def command(
        self: Speaks,
        arguments: Sequence[str | os.PathLike[str]],
        *,
        progress: str | re.Pattern[str] | None = None,
        stage: str | None = None,
        weight: float | None = None,
        unit: str = "",
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        grace: float = GRACE,
    ) -> None:
        """Run a program to its end, as a stage of the run: ``run.command(["ffmpeg", ...], progress=r"(\\d+)%")``.

        Its output, errors too, becomes log lines. `progress` is looked for in each line: one group is a percentage, two
        are what is done and the total. A cancel stops its whole process group: SIGTERM, and SIGKILL after `grace`
        seconds; what it left running ends with it. Blocks; in an event loop use ``asyncio.to_thread(run.command, ...)``.
        Raises subprocess.CalledProcessError with the last lines when it fails, FileNotFoundError, InvalidInput, and the
        Stop of the run.
        """
        if isinstance(arguments, str | bytes | os.PathLike):
            raise InvalidInput("arguments", f"{arguments!r:.80} is one text; give a list, as in ['ls', '-l']")
        words = [os.fspath(word) for word in arguments]
        if not words:
            raise InvalidInput("arguments", "is empty; give the program and its arguments")
        pattern = re.compile(progress) if progress is not None else None
        if pattern is not None and pattern.groups not in (1, 2):
            raise InvalidInput(
                "progress", f"{pattern.pattern!r:.60} must have one group (percent) or two (done, total)"
            )
        self.check()
        with self.stage(stage or Path(words[0]).name, weight=weight, unit=unit) as live:
            _Command(self, words, pattern, live, grace).run(cwd, env)


class _Command:
    """One program while it runs."""

    def __init__(
        self, run: Speaks, words: list[str], pattern: re.Pattern[str] | None, stage: LiveStage, grace: float
    ) -> None:
        self._run = run
        self._words = words
        self._pattern = pattern
        self._stage = stage
        self._grace = grace
        self._rest = b""
        self._last: deque[str] = deque(maxlen=LINES_KEPT)

    def run(self, cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None) -> None:
        """Run it to its end, or to the run's."""
        place = {**os.environ, **env} if env is not None else None
        command = [*_dies_with_us(self._words[0], cwd, place), *self._words]
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        assert process.stdout is not None, "a pipe"
        try:
            with process.stdout as output:
                self._follow(process, output)
        finally:
            _end_group(process)
        self._run.check()
        if process.returncode != 0:
            error = subprocess.CalledProcessError(process.returncode, self._words, "\n".join(self._last))
            if self._last:
                error.add_note("its last lines:\n" + "\n".join(self._last))
            raise error

    def _follow(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        """Read until the program has ended; tell it to stop when the run is to."""
        os.set_blocking(output.fileno(), False)
        told_at: float | None = None
        killed = False
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            is_open = True
            while True:
                ended = _has_ended(process)
                if is_open and selector.select(0 if ended else LOOKS):
                    is_open = self._read(output)
                elif ended:
                    break  # what it started may hold the pipe open for ever
                elif not is_open:
                    time.sleep(LOOKS)
                if self._run.stops and told_at is None:
                    told_at = time.monotonic()
                    _signal(process, signal.SIGTERM)
                elif told_at is not None and not killed and time.monotonic() - told_at > self._grace:
                    killed = True
                    _signal(process, signal.SIGKILL)
        self._hear(self._rest)

    def _read(self, output: IO[bytes]) -> bool:
        """Take what there is; False when there will be no more."""
        data = output.read(READ_SIZE)
        if not data:
            return data is None
        *lines, self._rest = _LINE.split(self._rest + data)
        if len(self._rest) > LINE_MOST:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._hear(line)
        return True

    def _hear(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if not text:
            return
        found = self._pattern.search(text) if self._pattern is not None else None
        if found is not None and self._count(found):
            return
        self._last.append(text)
        self._run.log(text)

    def _count(self, found: re.Match[str]) -> bool:
        """How far the program says that it is; whether that could be read."""
        try:
            done, total = [float(group) for group in (*found.groups(), "100")[:2]]
        except (TypeError, ValueError):
            return False
        if not total > 0 or not done >= 0:
            return False
        self._stage.total = total
        self._stage.done = max(self._stage.done, min(done, total))
        return True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the program has ended; it is not reaped yet, so that its group keeps its number."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    return process.poll() is not None


def _end_group(process: subprocess.Popen[bytes]) -> None:
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # nothing is left of it but the program itself, which has ended


def _dies_with_us(program: str, cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None) -> list[str]:
    """What lets the program die with this process, where util-linux has it. Raises FileNotFoundError."""
    path = (env or os.environ).get("PATH")
    named = os.path.join(cwd, program) if cwd is not None and os.path.dirname(program) else program
    if shutil.which(named, path=path) is None:
        raise FileNotFoundError(f"{program!r} is no program that can be run")
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv is not None else []
