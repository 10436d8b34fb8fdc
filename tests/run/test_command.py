"""`run.command` with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from milepost import JobCancelled
from milepost.core.errors import InvalidInputError
from milepost.testing import fake_run

pytestmark = pytest.mark.timing

PATIENCE = 120.0


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def until_there(path: Path) -> str:
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path} is not written"
        time.sleep(0.02)
    return path.read_text()


def is_gone(pid: int) -> bool:
    """Return whether a process has ended: it does not exist, or is a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_command_output_is_logged_and_pattern_sets_progress() -> None:
    run = fake_run()
    seen: list[float] = []
    program = "import sys\nfor n in range(5): print(f'{n}/4 frames', end='\\r', flush=True)\nprint('done'); print('oops', file=sys.stderr)"
    run.command(python(program), progress=r"(\d+)/(\d+) frames", stage="Encoding", unit="frame")
    seen.append(run.fraction)
    assert run.log_lines == ["done", "oops"]
    (stage,) = run.stages
    assert (stage.name, stage.done, stage.total, stage.unit) == ("Encoding", 4, 4, "frame")
    assert stage.ended_at is not None


def test_command_progress_from_one_group_is_percentage() -> None:
    run = fake_run()
    with pytest.raises(subprocess.CalledProcessError):
        run.command(python("print('at 12.5 %'); raise SystemExit(1)"), progress=r"at ([\d.]+) %")
    assert run.stages[0].done == 12.5
    assert run.fraction > 0


def test_command_line_without_number_is_logged() -> None:
    run = fake_run()
    run.command(python("print('at what %'); print('at -3 %')"), progress=r"at (\S+) %")
    assert run.log_lines == ["at what %", "at -3 %"]


def test_failing_command_raises_with_last_lines() -> None:
    run = fake_run()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run.command(python("print('the disk is full'); raise SystemExit(3)"))
    assert caught.value.returncode == 3
    assert caught.value.output == "the disk is full"
    assert "the disk is full" in "".join(caught.value.__notes__)


def test_command_output_of_bytes_and_unfinished_lines() -> None:
    run = fake_run()
    run.command(python("import os; os.write(1, b'\\xff\\xfe ' + b'x' * 200_000)"))
    assert run.log_lines[0].startswith("\ufffd\ufffd x")


def test_cancel_stops_process_group(tmp_path: Path) -> None:
    run = fake_run()
    program = (
        "import os, pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pids')!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(600)"
    )
    pids: list[int] = []

    def cancel() -> None:
        pids.extend(int(pid) for pid in until_there(tmp_path / "pids").split())
        run.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(JobCancelled):
        run.command(python(program))
    canceller.join()
    deadline = time.monotonic() + PATIENCE
    while not all(is_gone(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.02)
    assert len(pids) == 2


def test_command_ignoring_sigterm_is_killed_after_grace(tmp_path: Path) -> None:
    run = fake_run()
    ready = tmp_path / "ready"
    program = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))\n"
        f"pathlib.Path({str(ready)!r}).write_text('yes')\nwhile True: time.sleep(0.05)"
    )

    def cancel() -> None:
        until_there(ready)
        run.cancel()

    threading.Thread(target=cancel).start()
    with pytest.raises(JobCancelled):
        run.command(python(program), grace=3.0)  # in which a busy machine lets it write, too
    assert "no" in run.log_lines, "it was asked first"


def test_processes_left_by_command_are_killed(tmp_path: Path) -> None:
    run = fake_run()
    program = (
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))"
    )
    run.command(python(program))
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + PATIENCE
    while not is_gone(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_command_gets_cwd_and_env(tmp_path: Path) -> None:
    run = fake_run()
    run.command(python("import os; print(os.getcwd(), os.environ['COLOUR'])"), cwd=tmp_path, env={"COLOUR": "blue"})
    assert run.log_lines == [f"{os.path.realpath(tmp_path)} blue"]


def test_command_is_found_relative_to_cwd(tmp_path: Path) -> None:
    script = tmp_path / "build.sh"
    script.write_text("#!/bin/sh\necho built in $PWD\n")
    script.chmod(0o755)
    run = fake_run()
    run.command(["./build.sh"], cwd=tmp_path)
    assert run.log_lines == [f"built in {tmp_path}"]


def test_command_rejects_bad_arguments() -> None:
    run = fake_run()
    with pytest.raises(InvalidInputError, match="'ls -l' is a string; pass a list"):
        run.command("ls -l")
    with pytest.raises(InvalidInputError, match="arguments"):
        run.command([])
    with pytest.raises(InvalidInputError, match="progress"):
        run.command(["true"], progress="no group")
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        run.command(["no-such-program"])
    run.cancel()
    with pytest.raises(JobCancelled):
        run.command(["true"])
    assert "true" not in [stage.name for stage in run.stages]
