"""A page of documentation as the session that its reader would have: its blocks become one shell script.

A Python block with a ``title="x.py"`` is saved under that name; the others up to the next console block are one program.
In a console block the lines after ``$`` are run, and must succeed; a line that ends with ``&`` is waited for until it is
there. What a block shows as output must be in the output, `...` standing for anything; so must what stands in a comment
after a `print`. Commands that set up a machine are not run, but what they name must exist.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

from tests.architecture.rules import unknown_commands
from tests.services import free_port

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SET_UP = ("pip install ", "make ")
PATIENCE = 220


@dataclass
class Session:
    """The script of a page, and what its output must hold, in order."""

    folder: Path
    lines: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    program: list[str] = field(default_factory=list)
    programs: int = 0

    def python(self, code: str, title: str | None) -> None:
        """Take a Python block."""
        if title is not None:
            (self.folder / title).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / title).write_text(code)
        else:
            self.program.append(code)

    def flush(self) -> None:
        """Run the program that was collected."""
        if not self.program:
            return
        self.programs += 1
        path = self.folder / f"block_{self.programs}.py"
        path.write_text("\n".join(self.program))
        self.expected += re.findall(r"^ *print\(.*\)  # (.+)$", path.read_text(), re.MULTILINE)
        self.lines.append(f"python -W error {path.name}")
        self.program = []

    def console(self, text: str) -> None:
        """Take a console block."""
        self.flush()
        for line in text.splitlines():
            if not line.startswith("$ "):
                self.expected += [line.strip()] if line.strip() else []
                continue
            command = line[2:].partition("  #")[0].strip()
            if command.startswith(SET_UP):
                check_set_up(command)
            elif command.endswith("&"):
                self.lines.append(f"({command[:-1].strip()}) >&2 & last=$! started+=($!)")
                self.lines.append(f"until {is_there(command)}; do kill -0 $last; sleep 0.1; done")
            else:
                self.lines.append(command)


def is_there(command: str) -> str:
    """Shell that succeeds when what a command started is there."""
    if command.startswith(("celery ", "rq ", "dramatiq ", ".arq/")):
        return "true"  # their messages wait for them
    if "worker" in command:
        return "milepost workers --json | grep -q ."
    port = re.search(r"\b(\d{4,5})\b", command)
    return f"curl -s -o /dev/null http://127.0.0.1:{port[1] if port else 8321}/"


def check_set_up(command: str) -> None:
    """Check that a command that is not run names extras and targets that exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"milepost\[([\w,]+)\]", command):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), command
    assert unknown_commands(command, (ROOT / "Makefile").read_text()) == [], command


def blocks(text: str) -> list[tuple[str, str, str | None]]:
    """Return the blocks of a page: language, code, title."""
    found = []
    for indent, language, attributes, code in FENCE.findall(text):
        title = re.search(r'title="([^"]+)"', attributes)
        lines = [line.removeprefix(indent) for line in code.splitlines()]
        found.append((language, "\n".join(lines) + "\n", title[1] if title else None))
    return found


def session_of(page: list[tuple[str, str, str | None]], folder: Path) -> Session:
    """Return the session of some blocks."""
    session = Session(folder)
    for language, code, title in page:
        if language == "python":
            session.python(code, title)
        elif language == "console":
            session.console(code)
    session.flush()
    return session


def run(
    page: list[tuple[str, str, str | None]], folder: Path, redis_url: str, namespace: str, postgres_url: str = ""
) -> str:
    """Run a page; what it wrote. Ports and the addresses of Redis and PostgreSQL are those of this test."""
    port = str(free_port())
    addresses = {"8321": port, "redis://localhost": redis_url}
    if postgres_url:
        addresses["postgresql://localhost/app"] = postgres_url
    session = session_of(
        [
            (language, reduce(lambda text, pair: text.replace(*pair), addresses.items(), code), t)
            for language, code, t in page
        ],
        folder,
    )
    if not session.lines:
        return ""
    script = "\n".join(
        [
            "set -euo pipefail",
            "started=()",
            "trap 'for p in \"${started[@]}\"; do pkill -P $p || true; kill $p || true; done 2>/dev/null; wait' EXIT",
            "set -x",
            *session.lines,
        ]
    )
    (folder / "bin").mkdir()
    for name, code in {
        "python": 'exec {0} "$@"',
        "milepost": "exec {0} -c 'import sys; from milepost.cli import main; sys.exit(main())' \"$@\"",
    }.items():
        (folder / "bin" / name).write_text("#!/bin/sh\n" + code.format(shlex.quote(sys.executable)) + "\n")
        (folder / "bin" / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "PYTHONUTF8": "1",
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_DATA_HOME": str(folder / "data"),
        "MILEPOST_NAMESPACE": namespace,
    }
    for name in ("MILEPOST_URL", "REDIS_URL"):  # a reader has set neither; where a page needs one, it says so
        environment.pop(name, None)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr[-6000:]}\n--- stdout\n{done.stdout[-3000:]}"
    at = 0
    for line in session.expected:
        found = re.compile(re.escape(line).replace(r"\.\.\.", ".*?")).search(done.stdout, at)
        assert found, f"not in the output: {line!r}\n{done.stdout}\n--- stderr\n{done.stderr[-2000:]}"
        at = found.end()
    return done.stdout
