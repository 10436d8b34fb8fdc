"""`run.command`: a program as a stage of a run, with its output in the log and control over its process group."""

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
from milepost.core.errors import InvalidInputError, RunStop
from milepost.run.stages import LiveStage

POLL_INTERVAL = 0.1
"""Seconds between two checks whether the run is stopped."""
READ_SIZE = 65_536
MAX_LINE = 64 * 1024
MAX_ERROR_LINES = 20
_LINE = re.compile(rb"[\r\n]+")


class CommandRun(Protocol):
    """The part of a run that a command uses."""

    _stop_reasons: list[RunStop]

    def check(self) -> None: ...
    def log(self, text: str, level: str = "info") -> None: ...
    def stage(self, name: str, *, weight: float | None = None, total: float | None = None, unit: str = "item") -> LiveStage: ...  # fmt: skip


class CommandMixin:
    """Adds `command` to a Run."""

    def command(
        self: CommandRun,
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
        """Run a program as a stage of the run: ``run.command(["ffmpeg", ...], progress=r"(\\d+)%")``.

        Its output, including errors, becomes log lines. `progress` is searched in each line: one group is a percentage,
        two are the done and total units. A cancel stops its process group with SIGTERM, and with SIGKILL after `grace`
        seconds; processes that it left running are killed at its end. It blocks; in an event loop use
        ``asyncio.to_thread(run.command, ...)``.

        Raises subprocess.CalledProcessError with its last lines if it fails, FileNotFoundError, InvalidInputError, and
        the RunStop of the run.
        """
        if isinstance(arguments, str | bytes | os.PathLike):
            raise InvalidInputError(
                "arguments", f"{arguments!r:.80} is a string; pass a list of arguments, e.g. ['ls', '-l']"
            )
        words = [os.fspath(word) for word in arguments]
        if not words:
            raise InvalidInputError("arguments", "is empty; pass the program and its arguments")
        pattern = re.compile(progress) if progress is not None else None
        if pattern is not None and pattern.groups not in (1, 2):
            raise InvalidInputError(
                "progress", f"{pattern.pattern!r:.60} must have one group (percent) or two (done, total)"
            )
        self.check()
        with self.stage(stage or Path(words[0]).name, weight=weight, unit=unit) as live:
            _Command(self, words, pattern, live, grace).run(cwd, env)


class _Command:
    """A program while it runs."""

    def __init__(
        self, run: CommandRun, words: list[str], pattern: re.Pattern[str] | None, stage: LiveStage, grace: float
    ) -> None:
        self._run = run
        self._words = words
        self._pattern = pattern
        self._stage = stage
        self._grace = grace
        self._rest = b""
        self._last: deque[str] = deque(maxlen=MAX_ERROR_LINES)

    def run(self, cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None) -> None:
        """Run the program until it ends or the run is stopped."""
        place = {**os.environ, **env} if env is not None else None
        command = [*_with_parent_death_signal(self._words[0], cwd, place), *self._words]
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
                error.add_note("last lines of output:\n" + "\n".join(self._last))
            raise error

    def _follow(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        """Read output until the program has ended; signal it if the run is stopped."""
        os.set_blocking(output.fileno(), False)
        signalled_at: float | None = None
        killed = False
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            is_open = True
            while True:
                ended = _has_ended(process)
                if is_open and selector.select(0 if ended else POLL_INTERVAL):
                    is_open = self._read(output)
                elif ended:
                    break  # a process that it started may keep the pipe open
                elif not is_open:
                    time.sleep(POLL_INTERVAL)
                if self._run._stop_reasons and signalled_at is None:
                    signalled_at = time.monotonic()
                    _signal(process, signal.SIGTERM)
                elif signalled_at is not None and not killed and time.monotonic() - signalled_at > self._grace:
                    killed = True
                    _signal(process, signal.SIGKILL)
        self._handle_line(self._rest)

    def _read(self, output: IO[bytes]) -> bool:
        """Read what is available; return False at the end of the output."""
        data = output.read(READ_SIZE)
        if not data:
            return data is None
        *lines, self._rest = _LINE.split(self._rest + data)
        if len(self._rest) > MAX_LINE:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            self._handle_line(line)
        return True

    def _handle_line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if not text:
            return
        found = self._pattern.search(text) if self._pattern is not None else None
        if found is not None and self._parse_progress(found):
            return
        self._last.append(text)
        self._run.log(text)

    def _parse_progress(self, found: re.Match[str]) -> bool:
        """Take the progress from a match; return whether it could be parsed."""
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
    """Return whether the program has ended. It is not reaped yet, so that its process group keeps its number."""
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
        pass  # the program has ended and left no other process


def _with_parent_death_signal(
    program: str, cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None
) -> list[str]:
    """Return a command prefix that kills the program with this process, or []. Raises FileNotFoundError."""
    path = (env or os.environ).get("PATH")
    named = os.path.join(cwd, program) if cwd is not None and os.path.dirname(program) else program
    if shutil.which(named, path=path) is None:
        raise FileNotFoundError(f"{program!r} is not an executable program")
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv is not None else []
