"""The real program as a subprocess: in a pipe, or on a terminal of its own with keys that can be pressed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "import sys; from milepost.cli import main; sys.exit(main())"]
PATIENCE = 120.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class CommandRunner:
    """`milepost` with an environment of its own. `call` runs a command to its end, `start` leaves it running."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONUTF8": "1",
            "TERM": "xterm-256color",
            **environment,
        }
        self._started: list[RunningCommand | Terminal] = []

    def call(self, *words: str, code: int | None = 0, stdin: str = "", **environment: str) -> str:
        """Run a command and return its stdout; its exit code must be `code`, unless that is None."""
        done = self.run(*words, stdin=stdin, **environment)
        assert code is None or done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def error_line(self, *words: str, code: int, stdin: str = "") -> str:
        """Run a command that must fail with this code and one line on stderr, without a traceback; return that line."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def run(self, *words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a pipe."""
        return subprocess.run(
            [*COMMAND, *words], cwd=self.folder, env={**self.environment, **environment}, input=stdin,
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def rows(self, *words: str) -> list[dict[str, Any]]:
        """Return the JSON lines of a command."""
        return [json.loads(line) for line in self.call(*words, "--json").splitlines()]

    def start(self, *words: str, **environment: str) -> RunningCommand:
        """Start a command in a pipe."""
        started = RunningCommand(self, words, environment)
        self._started.append(started)
        return started

    def on_terminal(self, *words: str, columns: int = 100, lines: int = 30, **environment: str) -> Terminal:
        """Start a command on a terminal of its own."""
        started = Terminal(self, words, columns, lines, environment)
        self._started.append(started)
        return started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for started in self._started:
            started.end()


class RunningCommand:
    """A command that runs."""

    def __init__(self, program: CommandRunner, words: tuple[str, ...], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *words], cwd=program.folder, env={**program.environment, **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def finish(self, timeout: float = PATIENCE) -> tuple[int, str, str]:
        """Wait until it ends; return exit code, stdout and stderr."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def end(self) -> None:
        """Kill it, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stdout is not None and not self.process.stdout.closed:
            self.process.communicate()


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(
        self, program: CommandRunner, words: tuple[str, ...], columns: int, lines: int, environment: dict[str, str]
    ) -> None:
        self._pid, self._side = pty.fork()
        if self._pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.chdir(program.folder)
            os.execvpe(COMMAND[0], [*COMMAND, *words], {**program.environment, **environment})
        self.raw = ""
        self._code: int | None = None

    @property
    def text(self) -> str:
        """All that it has written so far, without what steers the terminal."""
        return _ESCAPES.sub("", self.raw)

    @property
    def width(self) -> int:
        """The length of the longest line that it has drawn, those drawn over included."""
        return max(map(len, re.split(r"[\r\n]+", self.text)))

    def press(self, keys: str) -> None:
        """Type something; ``\\x03`` is Ctrl-C, which the terminal turns into a SIGINT."""
        os.write(self._side, keys.encode())

    def read(self, seconds: float = 0.1) -> str:
        """Read for a while, or until it ends."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            ready, _, _ = select.select([self._side], [], [], 0.05)
            if not ready:
                continue
            try:
                data = os.read(self._side, 65536)
            except OSError:
                return self.text
            if not data:
                return self.text
            self.raw += data.decode("utf-8", "replace")
        return self.text

    def wait_for(self, wanted: str, timeout: float = PATIENCE) -> str:
        """Read until a text appears."""
        until = time.monotonic() + timeout
        while wanted not in self.read():
            assert time.monotonic() < until, f"{wanted!r} was not shown:\n{self.text[-3000:]}"
        return self.text

    def finish(self, timeout: float = PATIENCE) -> int:
        """Wait until it ends and return the exit code."""
        until = time.monotonic() + timeout
        while self._code is None:
            self.read(0.05)
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            assert time.monotonic() < until, f"still running:\n{self.text[-3000:]}"
        self.read(0.05)
        return self._code

    def end(self) -> None:
        """Kill it, if it still runs."""
        if self._code is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._side)


def until(look: Callable[[], Any], timeout: float = PATIENCE) -> Any:
    """Call a function again until its answer is true, and return the answer."""
    over = time.monotonic() + timeout
    while True:
        answer = look()
        if answer:
            return answer
        assert time.monotonic() < over, "it did not come to that"
        time.sleep(0.05)
