"""The program starts at once, and says what is missing."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec

import pytest

from milepost.cli.program import COMMANDS
from tests.cli.programs import COMMAND, PATIENCE, Program

BUDGET = 0.150


def loaded_by(*words: str) -> set[str]:
    """The modules that a command has imported at its end."""
    code = (
        "import sys\nfrom milepost.cli import main\n"
        f"main({list(words)!r})\nsys.stderr.write('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_help_needs_neither_rich_nor_stores() -> None:
    heavy = {
        "rich",
        "milepost.manager.synchronous",
        "milepost.stores.protocol",
        "fastapi",
        "redis",
        "numpy",
        "asyncio",
        "sqlite3",
    }
    assert loaded_by("--help") & heavy == set()


def test_help_is_there_at_once() -> None:
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


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_help(milepost: Program, name: str) -> None:
    shown = milepost.call(name, "--help")
    assert shown.startswith(f"Usage: milepost {name}")
    assert "--url" in shown


@pytest.mark.parametrize(("package", "extra"), [("click", "cli"), ("rich", "cli")])
def test_a_missing_extra_is_said_in_one_line(milepost: Program, package: str, extra: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from milepost.cli import main; sys.exit(main(['ls']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=milepost.environment, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"pip install 'milepost[{extra}]'" in done.stderr


def test_top_needs_a_terminal_and_its_extra(milepost: Program) -> None:
    assert "milepost ls -w" in milepost.complaint("top", code=2)
    if find_spec("textual") is None:
        terminal = milepost.on_terminal("top")
        assert terminal.finish() == 1
        assert "pip install 'milepost[tui]'" in terminal.text


def test_top_shows_jobs_and_takes_keys(milepost: Program) -> None:
    pytest.importorskip("textual")
    milepost.call("run", "--app", "tests.cli.work:jobs", "count", "1")
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
def test_the_readers_end_is_no_error(milepost: Program, words: tuple[str, ...]) -> None:
    """Nor is it waited for: what follows ends, though nothing happens and no line is written that could fail."""
    milepost.call("submit", "--app", "tests.cli.work:jobs", "count", "1")
    started = milepost.start(*words)
    assert started.process.stdout is not None
    started.process.stdout.close()
    assert started.process.wait(PATIENCE) == 0
    assert started.process.stderr is not None
    assert started.process.stderr.read() == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_output_that_cannot_be_written_is_said_in_one_line(milepost: Program) -> None:
    for command in ("ls", "doctor"):
        shell = f"{shlex.join([*COMMAND, command])} >/dev/full"
        done = subprocess.run(
            ["sh", "-c", shell], capture_output=True, text=True, env=milepost.environment, check=False
        )
        assert (done.returncode, done.stderr) == (
            1,
            "milepost: the output cannot be written: No space left on device\n",
        )
        shell = f"{shlex.join([*COMMAND, command])} >&-"
        done = subprocess.run(
            ["sh", "-c", shell], capture_output=True, text=True, env=milepost.environment, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_without_stdin_or_stderr_it_is_as_if_they_were_empty(milepost: Program) -> None:
    job_id = milepost.call("submit", "--app", "tests.cli.work:jobs", "count", "1").strip()
    for words, closed, code, said in (
        (("rm", job_id), "<&-", 2, "add --yes"),
        (("cancel", "-"), "<&-", 0, "no ids on stdin"),
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
        if name == "milepost.cli.session":
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Press())
from milepost.cli import main
sys.exit(main(["ls"]))
"""


def test_ctrl_c_while_it_starts_shows_no_traceback(milepost: Program) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRESSED], capture_output=True, text=True, env=milepost.environment, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")
