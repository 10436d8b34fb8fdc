"""Lists and questions on a terminal, on the store that a user has by default; a store of another release."""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
from contextlib import closing
from functools import partial

import pytest
import redis
from rich.console import Console

from milepost.cli.rendering.tables import table
from milepost.core.errors import LayoutMismatchError
from milepost.core.job import Job
from milepost.manager.sync import JobManager
from tests.cli.stores_fixture import STORES, StoreFixture
from tests.cli.subprocesses import CommandRunner, until

APP = ("--app", "tests.cli.sample_app:jobs")


@pytest.fixture
def filled(milepost: CommandRunner) -> CommandRunner:
    """Return a store with one job of each status."""
    for job_id, status in (("a-done", "completed"), ("a-bad", "failed"), ("b-gone", "cancelled"), ("c-now", "running")):
        fill(milepost, job_id, status)
    fill(milepost, "d-next", None)
    return milepost


def fill(program: CommandRunner, job_id: str, status: str | None) -> None:
    """Record a job as its caller would."""
    os.makedirs(program.folder / "state" / "milepost", exist_ok=True)
    manager = JobManager(f"sqlite:///{program.folder}/state/milepost/jobs.db")
    manager.create_job(job_id, "generic", {"title": f"title of {job_id}"}, labels={"owner": "ana"})
    if status is not None:
        manager.update_job(job_id, status=status, progress=0.47, message=f"message of {job_id}")
    manager.close()


def test_generated_ids_are_found_by_shown_prefix(milepost: CommandRunner) -> None:
    terminal = milepost.on_terminal("run", *APP, "count", "1")
    assert terminal.finish() == 0
    shown = re.search(r"milepost show (\S+)", terminal.text)
    assert shown is not None
    assert len(shown[1]) in (8, 13)  # 8 are enough as soon as all ids of the same minute have been made
    assert milepost.rows("show", shown[1])[0]["job_id"].startswith(shown[1])
    fill(milepost, f"{shown[1]}-of-mine", None)
    assert milepost.rows("show", f"{shown[1]}-of")[0]["job_id"] == f"{shown[1]}-of-mine"


def test_times_use_local_zone(filled: CommandRunner) -> None:
    assert re.search(r"created .*\+05:30", filled.call("show", "a-bad", TZ="Asia/Kolkata"))
    assert re.search(r"created .*UTC", filled.call("show", "a-bad", "--utc", TZ="Asia/Kolkata"))


def test_tree_says_why_children_wait(milepost: CommandRunner) -> None:
    """Regression: it said "Waiting for a worker" of each job that waited, whatever for."""
    fill(milepost, "root", None)
    milepost.call("submit", *APP, "count", "1", "--parent-id", "root", "--job-id", "child")
    assert "No worker serves count" in milepost.call("ls", "id:child")
    assert milepost.call("tree", "root").splitlines()[1].endswith("child  No worker serves count")


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_list_fits_terminal_width(filled: CommandRunner, columns: int) -> None:
    terminal = filled.on_terminal("ls", columns=columns)
    assert terminal.finish() == 0
    assert terminal.width <= columns
    assert "5 jobs · 1 running · 1 pending · 1 failed" in " ".join(terminal.text.split())
    assert "CREATED" in terminal.text or columns < 100
    for sign in "◌◐⊘✗✓":
        assert sign in terminal.text
    assert "\x1b[3" in terminal.raw


def test_ids_of_children_are_shortened() -> None:
    """Regression: on a terminal of 80 columns a list with a child showed nothing but ids."""
    root = "01a225dc-596b-7f45-ac98-5b274aa55226"
    tails = ("yfiBpiRLx4O1J1ghZuFrFA", "-uu15wXg953rIP3wBgQqWQ", "yfi.1J1ghZuFrFAyfiBpiRLx4O")
    record = {"type": "generic", "status": "running", "created": "0"}
    children = [Job.stored(f"{root}.{tail}", record) for tail in tails]
    output = io.StringIO()
    console = Console(file=output, width=120)
    console.print(table(console, [Job.stored(root, record), *children], utc=True))
    shown = [line.split()[1] for line in output.getvalue().splitlines()[1:]]
    assert shown == ["01a225dc", *(f"{root}.{tail[:-18]}" for tail in tails)]
    assert output.getvalue().count("generic") == 4


@pytest.mark.parametrize(("columns", "left_out"), [(80, ["PROGRESS"]), (64, ["%", "TYPE"]), (110, ["CREATED"])])
def test_columns_give_way_to_the_activity(columns: int, left_out: list[str]) -> None:
    """Regression: beside the ids of children nothing said what a job does."""
    root = "01a225dc-596b-7f45-ac98-5b274aa55226"
    record = {"type": "children", "status": "failed", "created": "0", "error": "no such file"}
    children = [Job.stored(f"{root}.{tail}AAAAAAAAAAAAAAAAAAAAA", record) for tail in "xyz"]
    output = io.StringIO()
    console = Console(file=output, width=columns, force_terminal=True, color_system=None)
    console.print(table(console, children, utc=True))
    heading, *rows = output.getvalue().splitlines()
    assert heading.split()[-1] == "ACTIVITY"
    assert set(left_out).isdisjoint(heading.split())
    assert [row.split()[1] for row in rows] == [f"{root}.{tail}AAA" for tail in "xyz"]
    assert [row.rstrip().endswith("no such file") for row in rows] == [True] * 3


@pytest.mark.parametrize(("command", "left_out"), [("stats", "WAIT P50"), ("failures", "TYPES")])
def test_narrow_terminal_drops_columns(filled: CommandRunner, command: str, left_out: str) -> None:
    filled.call("run", *APP, "broken", "alas", code=1)
    narrow, wide = filled.on_terminal(command, columns=50), filled.on_terminal(command, columns=160)
    assert (narrow.finish(), wide.finish()) == (0, 0)
    assert narrow.width <= 50
    assert "…" not in narrow.text
    assert left_out in wide.text
    assert left_out not in narrow.text


def test_ls_all_shows_every_job_on_terminal(milepost: CommandRunner) -> None:
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


def test_ls_of_empty_store_names_the_store(milepost: CommandRunner) -> None:
    for options in ((), ("--json",)):
        done = milepost.run("ls", *options, MILEPOST_URL="", REDIS_URL="")
        assert done.returncode == 0
        assert done.stderr.count("\n") == 1
        assert (
            "/state/milepost/jobs.db yet; start one with milepost run ingestion PATH..., or name the store"
            in done.stderr
        )
    named = milepost.run("ls", "--url", "sqlite:///mine.db")
    assert named.stderr == "milepost: no jobs in mine.db yet; start one with milepost run ingestion PATH...\n"
    terminal = milepost.on_terminal("ls", MILEPOST_URL="", REDIS_URL="", columns=300)
    assert "a program that names none keeps its jobs in memory" in terminal.wait_for("No jobs in")
    assert terminal.finish() == 0
    assert milepost.run("ls", "status:failed").stderr == ""


def test_output_without_colour_and_unicode(filled: CommandRunner) -> None:
    plain = filled.on_terminal("ls", NO_COLOR="1")
    assert plain.finish() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain.raw)
    ascii_only = filled.on_terminal("ls", PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert ascii_only.finish() == 0
    assert ascii_only.text.isascii()
    assert "#" in ascii_only.text


def test_unencodable_characters_are_escaped(milepost: CommandRunner) -> None:
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


def test_live_list_updates_until_ctrl_c(milepost: CommandRunner) -> None:
    milepost.start("run", *APP, "count", "100000")
    until(lambda: milepost.rows("ls", "status:running"))
    terminal = milepost.on_terminal("ls", "-w")
    terminal.wait_for("Counting")
    first = len(terminal.text)
    until(lambda: len(terminal.read(0.3)) > first)
    terminal.press("\x03")
    assert terminal.finish() == 0


def test_empty_list_suggests_next_command(milepost: CommandRunner) -> None:
    terminal = milepost.on_terminal("ls")
    assert terminal.finish() == 0
    assert "milepost run ingestion PATH..." in terminal.text
    assert milepost.call("ls", "status:failed").splitlines()[1:] == []
    assert "no jobs in" in milepost.error_line("show", code=1)


def test_cancel_by_filter_asks_on_terminal(filled: CommandRunner) -> None:
    terminal = filled.on_terminal("cancel", "status:pending")
    terminal.wait_for("Continue?")
    terminal.press("n\r")
    assert terminal.finish() == 0
    assert [job["job_id"] for job in filled.rows("ls", "is:active")] == ["d-next", "c-now"]


@pytest.mark.parametrize("where", STORES, indirect=True)
def test_newer_layout_is_one_line_error(where: StoreFixture) -> None:
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
        assert "layout 7, this release reads 1; upgrade milepost" in where.error_line(command, code=1)
    write("0")
    assert "layout 0, this release reads 1; run: milepost migrate" in where.error_line("ls", code=1)
    assert "unknown store layout 0; restore the store from a backup" in where.error_line("migrate", code=1)
    write("1")
    assert where.rows("migrate") == [{"from": 1, "to": 1, "moved": False}]


@pytest.mark.parametrize(
    ("change", "lacks"),
    [
        ("DROP TABLE subqueues", "no such table: subqueues"),
        ("ALTER TABLE events RENAME COLUMN at TO moment", "no such column: at"),
        ("DROP INDEX jobs_deadline; ALTER TABLE jobs DROP COLUMN deadline", "table jobs has no column named deadline"),
        ("DROP INDEX jobs_deadline", "no such index: jobs_deadline"),
    ],
)
def test_store_of_a_development_version_is_one_line_error(milepost: CommandRunner, change: str, lacks: str) -> None:
    """Regression: a store without a table that this release has ended in a traceback of SQLite."""
    path = milepost.folder / "old.db"
    manager = JobManager(f"sqlite:///{path}")
    manager.enqueue("generic")
    manager.close()
    with closing(sqlite3.connect(path)) as file:
        file.executescript(change)
    use = manager.list_jobs if "column" not in lacks else partial(manager.enqueue, "generic")
    with pytest.raises(LayoutMismatchError) as caught:
        use()
    line = str(caught.value)
    manager.close()
    remedy = "use that version, or move the store away and start anew"
    assert line == f"{path}: made by another version of milepost ({lacks}); {remedy}"
    if change == "DROP TABLE subqueues":
        assert milepost.error_line("ls", "--url", f"sqlite:///{path}", code=1) == f"milepost: {line}\n"
