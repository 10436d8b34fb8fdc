"""`milepost top` shows what `milepost ls -w` shows."""

from __future__ import annotations

import pytest

from milepost.manager.sync import JobManager
from tests.cli.subprocesses import CommandRunner

pytest.importorskip("textual")


def test_waiting_job_says_why_at_80_columns(milepost: CommandRunner) -> None:
    """Regression: the last column was outside the screen, and its text was "Waiting for a worker"."""
    milepost.call("submit", "count", "3", "--app", "tests.cli.sample_app:jobs", "--queue", "gpu")
    terminal = milepost.on_terminal("top", columns=80, lines=24)
    text = terminal.wait_for("No worker serves count")
    assert "ACTIVITY" in text
    terminal.press("q")
    assert terminal.finish() == 0
    assert milepost.rows("ls")[0]["activity"] == "No worker serves count in the queue gpu"


def test_job_of_unknown_length_has_no_percentage(milepost: CommandRunner) -> None:
    """Regression: it showed 0%."""
    (milepost.folder / "state" / "milepost").mkdir(parents=True)
    manager = JobManager(f"sqlite:///{milepost.folder}/state/milepost/jobs.db")
    with manager.track("counting") as run:
        for _ in run.each(iter("abc")):
            terminal = milepost.on_terminal("top", columns=80, lines=24)
            text = terminal.wait_for("counting")
            terminal.press("q")
            assert terminal.finish() == 0
            break
    manager.close()
    assert "0%" not in text


def test_error_with_brackets_is_no_markup(milepost: CommandRunner) -> None:
    """Regression: its text was read as markup, which ended the screen with a MarkupError, or made a button of it."""
    (milepost.folder / "state" / "milepost").mkdir(parents=True)
    JobManager(f"sqlite:///{milepost.folder}/state/milepost/jobs.db").close()
    terminal = milepost.on_terminal("top", "created:[/b]", columns=120, lines=24)
    terminal.wait_for("'[/b]' is not a time")
    terminal.press("q")
    assert terminal.finish() == 0
    assert "MarkupError" not in terminal.raw
