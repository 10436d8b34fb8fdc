"""The program starts at once, and says what is missing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec

import pytest

from milepost import plugins
from tests.cli.subprocesses import COMMAND, PATIENCE, CommandRunner

BUDGET = 0.150


def loaded_by(*words: str) -> set[str]:
    """Return the modules that a command has imported at its end."""
    code = (
        "import sys\nfrom milepost.cli import main\n"
        f"main({list(words)!r})\nsys.stderr.write('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_package_runs_as_the_command() -> None:
    done = [
        subprocess.run([*program, "--help"], capture_output=True, text=True, check=True)
        for program in ([*COMMAND], [sys.executable, "-m", "milepost"])
    ]
    assert done[0].stdout == done[1].stdout
    refused = subprocess.run([sys.executable, "-m", "milepost", "absent"], capture_output=True, text=True)
    assert refused.returncode == 2


def test_help_imports_neither_rich_nor_stores() -> None:
    heavy = {
        "rich",
        "milepost.manager.sync",
        "milepost.stores.protocol",
        "fastapi",
        "redis",
        "numpy",
        "asyncio",
        "sqlite3",
    }
    assert loaded_by("--help") & heavy == set()


def test_help_stays_within_time_budget() -> None:
    """In processor time, which a busy machine does not stretch; `make bench` measures by the clock."""

    def least(command: list[str]) -> float:
        times = []
        for _ in range(5):
            before = os.times()
            subprocess.run(command, check=True, capture_output=True)
            after = os.times()
            spent = after.children_user - before.children_user + after.children_system - before.children_system
            times.append(spent)
        return min(times)

    assert least([*COMMAND, "--help"]) - least([sys.executable, "-c", "pass"]) < BUDGET


@pytest.mark.parametrize("name", plugins.BUILT_IN["milepost.commands"])
def test_each_command_has_help(milepost: CommandRunner, name: str) -> None:
    shown = milepost.call(name, "--help")
    assert shown.startswith(f"Usage: milepost {name}")
    assert "--url" in shown


@pytest.mark.parametrize(("package", "extra"), [("click", "cli"), ("rich", "cli")])
def test_missing_extra_is_one_line_error(milepost: CommandRunner, package: str, extra: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from milepost.cli import main; sys.exit(main(['ls']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=milepost.environment, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"pip install 'milepost[{extra}]'" in done.stderr


def test_top_needs_terminal_and_extra(milepost: CommandRunner) -> None:
    assert "milepost ls -w" in milepost.error_line("top", code=2)
    if find_spec("textual") is None:
        terminal = milepost.on_terminal("top")
        assert terminal.finish() == 1
        assert "pip install 'milepost[tui]'" in terminal.text


def test_top_shows_jobs_and_takes_keys(milepost: CommandRunner) -> None:
    pytest.importorskip("textual")
    milepost.call("run", "--app", "tests.cli.sample_app:jobs", "count", "1")
    terminal = milepost.on_terminal("top")
    terminal.wait_for("Completed in")
    terminal.press("q")
    assert terminal.finish() == 0


@pytest.mark.parametrize(
    "words",
    [
        ("completion", "bash"),
        ("ls", "--json"),
        ("show",),
        ("ls", "-w"),
        ("watch",),
        ("watch", "--json"),
        ("logs", "-f"),
    ],
)
def test_closed_pipe_is_not_an_error(milepost: CommandRunner, words: tuple[str, ...]) -> None:
    """Nor is it waited for: what follows ends, though nothing happens and no line is written that could fail."""
    milepost.call("submit", "--app", "tests.cli.sample_app:jobs", "count", "1")
    started = milepost.start(*words)
    assert started.process.stdout is not None
    started.process.stdout.close()
    assert started.process.wait(PATIENCE) == 0
    assert started.process.stderr is not None
    assert started.process.stderr.read() == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_full_disk_is_one_line_error(milepost: CommandRunner) -> None:
    for command in (("ls", "status:failed"), ("doctor",)):
        shell = f"{shlex.join([*COMMAND, *command])} >/dev/full"
        done = subprocess.run(
            ["sh", "-c", shell], capture_output=True, text=True, env=milepost.environment, check=False
        )
        assert (done.returncode, done.stderr) == (
            1,
            "milepost: cannot write the output: No space left on device\n",
        )
        shell = f"{shlex.join([*COMMAND, *command])} >&-"
        done = subprocess.run(
            ["sh", "-c", shell], capture_output=True, text=True, env=milepost.environment, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_closed_stdin_and_stderr_are_treated_as_empty(milepost: CommandRunner) -> None:
    job_id = milepost.call("submit", "--app", "tests.cli.sample_app:jobs", "count", "1").strip()
    for words, closed, code, said in (
        (("rm", job_id), "<&-", 2, "confirm with --yes"),
        (("cancel", "-"), "<&-", 0, "no job ids on stdin"),
        (("show", "@first"), "2>&-", 2, ""),
    ):
        shell = f"{shlex.join([*COMMAND, *words])} {closed}"
        done = subprocess.run(
            ["sh", "-c", shell], capture_output=True, text=True, env=milepost.environment, check=False
        )
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert done.stderr.count("\n") == (said != "")


PRESSED = """
import signal, sys
class Press:
    def find_spec(self, name, path=None, target=None):
        if name == "milepost.cli.context":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Press())
from milepost.cli import main
sys.exit(main(["ls"]))
"""


def test_ctrl_c_during_startup_shows_no_traceback(milepost: CommandRunner) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRESSED], capture_output=True, text=True, env=milepost.environment, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
