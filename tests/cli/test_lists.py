"""Lists and questions on a terminal, on the store that a user has by default; a store of another release."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from contextlib import closing

import pytest
import redis

from milepost.manager.synchronous import JobManager
from tests.cli.places import STORES, Place
from tests.cli.programs import Program, until

APP = ("--app", "tests.cli.work:jobs")


@pytest.fixture
def filled(milepost: Program) -> Program:
    """A store with one job of each status."""
    for job_id, status in (("a-done", "completed"), ("a-bad", "failed"), ("b-gone", "cancelled"), ("c-now", "running")):
        fill(milepost, job_id, status)
    fill(milepost, "d-next", None)
    return milepost


def fill(program: Program, job_id: str, status: str | None) -> None:
    """Record a job as its caller would."""
    os.makedirs(program.folder / "state" / "milepost", exist_ok=True)
    manager = JobManager(f"sqlite:///{program.folder}/state/milepost/jobs.db")
    manager.create_job(job_id, "generic", {"title": f"title of {job_id}"}, labels={"owner": "ana"})
    if status is not None:
        manager.update_job(job_id, status=status, progress=0.47, message=f"message of {job_id}")
    manager.close()


def test_made_ids_are_found_by_what_is_shown_of_them(milepost: Program) -> None:
    terminal = milepost.on_terminal("run", *APP, "count", "1")
    assert terminal.finish() == 0
    shown = re.search(r"milepost show (\S+)", terminal.text)
    assert shown is not None
    assert len(shown[1]) == 8
    assert milepost.rows("show", shown[1])[0]["job_id"].startswith(shown[1])
    fill(milepost, f"{shown[1]}-of-mine", None)
    assert milepost.rows("show", f"{shown[1]}-of")[0]["job_id"] == f"{shown[1]}-of-mine"


def test_times_are_those_of_the_users_zone(filled: Program) -> None:
    assert re.search(r"created .*\+05:30", filled.call("show", "a-bad", TZ="Asia/Kolkata"))
    assert re.search(r"created .*UTC", filled.call("show", "a-bad", "--utc", TZ="Asia/Kolkata"))


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_a_list_on_a_terminal_fits_it(filled: Program, columns: int) -> None:
    terminal = filled.on_terminal("ls", columns=columns)
    assert terminal.finish() == 0
    assert terminal.width <= columns
    assert "5 jobs · 1 running · 1 pending · 1 failed" in " ".join(terminal.text.split())
    assert "CREATED" in terminal.text or columns < 100
    for sign in "◌◐⊘✗✓":
        assert sign in terminal.text
    assert "\x1b[3" in terminal.raw


@pytest.mark.parametrize(("command", "left_out"), [("stats", "WAITED P50"), ("failures", "TYPES")])
def test_a_table_on_a_narrow_terminal_leaves_columns_out_rather_than_cutting_all(
    filled: Program, command: str, left_out: str
) -> None:
    filled.call("run", *APP, "broken", "alas", code=1)
    narrow, wide = filled.on_terminal(command, columns=50), filled.on_terminal(command, columns=160)
    assert (narrow.finish(), wide.finish()) == (0, 0)
    assert narrow.width <= 50
    assert "…" not in narrow.text
    assert left_out in wide.text
    assert left_out not in narrow.text


def test_all_jobs_are_all_of_them_on_a_terminal_too(milepost: Program) -> None:
    url = f"sqlite:///{milepost.folder}/jobs.db"
    manager = JobManager(url)
    for number in range(1001):
        manager.create_job(f"job-{number}")
    manager.close()
    for words in (("-a",), ("-n", "5000")):
        terminal = milepost.on_terminal("ls", *words, "--url", url)
        assert terminal.finish() == 0
        assert "1,001 jobs" in terminal.text
        assert " job-0 " in terminal.text


def test_without_colour_and_without_unicode(filled: Program) -> None:
    plain = filled.on_terminal("ls", NO_COLOR="1")
    assert plain.finish() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain.raw)
    ascii_only = filled.on_terminal("ls", PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert ascii_only.finish() == 0
    assert ascii_only.text.isascii()
    assert "#" in ascii_only.text


def test_what_the_output_cannot_show_is_escaped(milepost: Program) -> None:
    message = "\u65e5\u672c \U0001f469 \u00e9"
    fill(milepost, "a", None)
    manager = JobManager(f"sqlite:///{milepost.folder}/state/milepost/jobs.db")
    manager.update_job("a", status="running", message=message)
    manager.close()
    narrow = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    for command in ("ls", "show"):
        assert "\\u65e5\\u672c \\ud83d\\udc69 \\u00e9" in milepost.call(command, **narrow)
    assert json.loads(milepost.call("ls", "--json", **narrow))["message"] == message
    terminal = milepost.on_terminal("ls", columns=70, LC_ALL="C", **narrow)
    assert terminal.finish() == 0
    assert terminal.text.isascii()
    assert "?? ? ?" in terminal.text
    assert terminal.width <= 70


def test_a_live_list_moves_and_ends_with_ctrl_c(milepost: Program) -> None:
    milepost.start("run", *APP, "count", "100000")
    until(lambda: milepost.rows("ls", "status:running"))
    terminal = milepost.on_terminal("ls", "-w")
    terminal.wait_for("Counting")
    first = len(terminal.text)
    until(lambda: len(terminal.read(0.3)) > first)
    terminal.press("\x03")
    assert terminal.finish() == 0


def test_nothing_to_see_says_what_to_do(milepost: Program) -> None:
    terminal = milepost.on_terminal("ls")
    assert terminal.finish() == 0
    assert "milepost run ingestion PATH..." in terminal.text
    assert milepost.call("ls", "status:failed").splitlines()[1:] == []
    assert "there are no jobs in" in milepost.complaint("show", code=1)


def test_cancel_asks_on_a_terminal(filled: Program) -> None:
    terminal = filled.on_terminal("cancel", "status:pending")
    terminal.wait_for("Go on?")
    terminal.press("n\r")
    assert terminal.finish() == 0
    assert [job["job_id"] for job in filled.rows("ls", "is:active")] == ["d-next", "c-now"]


@pytest.mark.parametrize("where", STORES, indirect=True)
def test_a_layout_of_another_release_is_said_in_one_line(where: Place) -> None:
    where.call("ls")
    url = where.store

    def write(layout: str) -> None:
        if url.startswith("sqlite"):
            with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file, file:
                file.execute("UPDATE state SET value = ? WHERE name = 'layout'", (layout,))
        else:
            with redis.Redis.from_url(url) as client:
                client.set(f"{{{where.environment['MILEPOST_NAMESPACE']}}}:layout", layout)

    write("7")
    for command in ("ls", "doctor", "migrate"):
        assert "layout 7, this release reads 1; upgrade milepost" in where.complaint(command, code=1)
    write("0")
    assert "layout 0, this release reads 1; run: milepost migrate" in where.complaint("ls", code=1)
    assert "layout 0, which no release has written" in where.complaint("migrate", code=1)
    write("1")
    assert where.rows("migrate") == [{"from": 1, "to": 1, "moved": False}]
