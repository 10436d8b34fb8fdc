"""Looking at jobs and changing several at once: `ls`, `show`, ids, filters, `cancel`, `retry`, `rm`, `failures`, `stats`."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from contextlib import closing

import pytest
import redis

from milepost.manager.synchronous import JobManager
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
    url = program.environment.get("MILEPOST_URL") or f"sqlite:///{program.folder}/state/milepost/jobs.db"
    os.makedirs(program.folder / "state" / "milepost", exist_ok=True)
    manager = JobManager(url)
    manager.create_job(job_id, "generic", {"title": f"title of {job_id}"}, labels={"owner": "ana"})
    if status is not None:
        manager.update_job(job_id, status=status, progress=0.47, message=f"message of {job_id}")
    manager.close()


def test_a_list_in_a_pipe_is_aligned_and_whole(filled: Program) -> None:
    lines = filled.call("ls").splitlines()
    assert lines[0].split() == ["ID", "TYPE", "STATUS", "%", "CREATED", "MESSAGE"]
    assert [line.split()[0] for line in lines[1:]] == ["d-next", "c-now", "b-gone", "a-bad", "a-done"]
    assert "\x1b" not in "".join(lines)
    assert len({line.index(" generic ") for line in lines[1:]}) == 1
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        (["status:failed"], {"a-bad"}),
        (["status:failed,running"], {"a-bad", "c-now"}),
        (["is:active"], {"c-now", "d-next"}),
        (["label.owner:ana", "not.status:pending"], {"a-done", "a-bad", "b-gone", "c-now"}),
        (["created:1h", "title of b"], {"b-gone"}),
        (["id:a-"], {"a-done", "a-bad"}),
        (["status:failed", "status:running", "-n", "1"], {"c-now"}),
    ],
)
def test_filters(filled: Program, terms: list[str], found: set[str]) -> None:
    assert {job["job_id"] for job in filled.rows("ls", *terms)} == found


def test_ids_are_given_by_unique_prefix(filled: Program) -> None:
    assert filled.rows("show", "b")[0]["job_id"] == "b-gone"
    assert filled.rows("show", "@last")[0]["job_id"] == "d-next"
    assert "a-bad, a-done" in filled.complaint("show", "a-", code=2)
    assert "milepost ls" in filled.complaint("show", "x", code=1)
    assert "not found" in filled.complaint("show", "ffffffff", code=1)


def test_made_ids_are_found_by_what_is_shown_of_them(milepost: Program) -> None:
    terminal = milepost.on_terminal("run", *APP, "count", "1")
    assert terminal.finish() == 0
    shown = re.search(r"milepost show (\S+)", terminal.text)
    assert shown is not None
    assert len(shown[1]) == 8
    assert milepost.rows("show", shown[1])[0]["job_id"].startswith(shown[1])
    fill(milepost, f"{shown[1]}-of-mine", None)
    assert milepost.rows("show", f"{shown[1]}-of")[0]["job_id"] == f"{shown[1]}-of-mine"


def test_a_job_is_shown_with_all_that_is_known(filled: Program) -> None:
    shown = filled.call("show", "a-bad")
    for part in (
        "generic",
        "a-bad",
        "failed",
        "47 %",
        "message of a-bad",
        "owner=ana",
        "title of a-bad",
        "milepost rm a-bad",
    ):
        assert part in shown
    assert re.search(r"created +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d", filled.call("show", "a-bad"))
    assert re.search(r"created .*UTC", filled.call("show", "a-bad", "--utc"))
    assert re.search(r"created .*\+05:30", filled.call("show", "a-bad", TZ="Asia/Kolkata"))


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


def test_without_colour_and_without_unicode(filled: Program) -> None:
    plain = filled.on_terminal("ls", NO_COLOR="1")
    assert plain.finish() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain.raw)
    ascii_only = filled.on_terminal("ls", PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert ascii_only.finish() == 0
    assert ascii_only.text.isascii()
    assert "#" in ascii_only.text


def test_a_live_list_moves_and_ends_with_ctrl_c(milepost: Program) -> None:
    milepost.start("run", *APP, "count", "100000")
    until(lambda: milepost.rows("ls", "status:running"))
    terminal = milepost.on_terminal("ls", "-w")
    terminal.wait_for("Counting")
    first = len(terminal.text)
    until(lambda: len(terminal.read(0.3)) > first)
    terminal.press("\x03")
    assert terminal.finish() == 0


def test_a_live_list_in_a_pipe_is_a_line_for_each_change(milepost: Program) -> None:
    following = milepost.start("ls", "-w", "--json")
    milepost.call("run", *APP, "count", "200")
    assert following.process.stdout is not None
    statuses = []
    for line in following.process.stdout:
        statuses.append(json.loads(line)["status"])
        if statuses[-1] == "completed":
            break
    assert statuses[0] == "running"


def test_nothing_to_see_says_what_to_do(milepost: Program) -> None:
    terminal = milepost.on_terminal("ls")
    assert terminal.finish() == 0
    assert "milepost run ingestion PATH..." in terminal.text
    assert milepost.call("ls", "status:failed").splitlines()[1:] == []
    assert "milepost ls" in milepost.complaint("show", code=1)


def test_cancel_by_filter_counts_and_asks(filled: Program) -> None:
    assert "cancel 2 jobs (1 pending, 1 running)" in filled.complaint("cancel", "label.owner:ana", code=2)
    filled.call("cancel", "label.owner:ana", "--yes")
    assert filled.rows("ls", "is:active") == []
    refused = filled.complaint("cancel", "a-done", code=1)
    assert "Cannot cancel job with status completed" in refused


def test_cancel_takes_ids_from_stdin_and_a_yes_from_a_terminal(filled: Program) -> None:
    filled.call("cancel", "-", stdin="c-now  something else\n\n")
    terminal = filled.on_terminal("cancel", "status:pending")
    terminal.wait_for("Go on?")
    terminal.press("n\r")
    assert terminal.finish() == 0
    assert [job["job_id"] for job in filled.rows("ls", "is:active")] == ["d-next"]


def test_rm_counts_first(filled: Program) -> None:
    assert "delete 2 jobs (1 completed, 1 failed)" in filled.call("rm", "--dry-run", "id:a-")
    assert "add --yes" in filled.complaint("rm", "a-done", code=2)
    assert "Deleted 2 jobs" in filled.call("rm", "id:a-", "--yes")
    assert len(filled.rows("ls")) == 3


def test_retry_sends_back_what_workers_run(milepost: Program) -> None:
    job_id = milepost.call("submit", *APP, "count", "1").strip()
    milepost.call("cancel", job_id)
    assert milepost.rows("retry", job_id)[0]["status"] == "pending"
    milepost.call("cancel", job_id)
    assert "retry 1 job (1 cancelled)" in milepost.complaint("retry", "status:cancelled", code=2)
    milepost.call("retry", "status:cancelled", "--yes")
    assert milepost.rows("show", job_id)[0]["status"] == "pending"
    assert "Cannot retry job" in milepost.complaint("retry", job_id, code=1)


def test_failures_are_grouped_and_their_filter_works(milepost: Program) -> None:
    for words in (("a",), ("b",), ("c", "kind=key")):
        milepost.call("run", *APP, "broken", *words, code=1)
    groups = milepost.rows("failures")
    assert [(group["count"], group["group"].partition("@")[0]) for group in groups] == [
        (2, "ValueError"),
        (1, "KeyError"),
    ]
    assert len(milepost.rows("ls", *groups[0]["filter"].split())) == 2
    assert groups[0]["message"] == "b"
    assert "ValueError@work.py" in milepost.call("failures")


def test_numbers(filled: Program) -> None:
    [generic] = filled.rows("stats")
    counts = {name: generic[name] for name in ("total", "pending", "running", "completed", "failed", "cancelled")}
    assert counts == {"total": 5, "pending": 1, "running": 1, "completed": 1, "failed": 1, "cancelled": 1}
    assert generic["success"] == 0.5
    assert "50 %" in filled.call("stats", "created:1d")


def test_the_store_is_looked_after(program: Program) -> None:
    done = program.run("doctor", "--json")
    found = json.loads(done.stdout)
    assert found["layout"] == 1
    assert found["kind"] in ("sqlite", "redis", "valkey")
    assert done.returncode == (1 if found["warnings"] else 0)
    assert all(warning in program.run("doctor").stdout for warning in found["warnings"])
    assert program.rows("migrate") == [{"from": 1, "to": 1, "moved": False}]
    fill(program, "old", "completed") if program.environment["MILEPOST_URL"].startswith("sqlite") else None
    assert program.rows("purge", "--older-than", "0")[0]["purged"] >= 0
    key = program.call("keys", "create", "ci", "--scope", "jobs:read", "--expires-in", "30d").strip()
    assert re.fullmatch(r"mp_[0-9a-f]+_\S+", key)
    [listed] = program.rows("keys")
    assert listed["scopes"] == ["jobs:read"]
    program.call("keys", "revoke", listed["id"])
    assert program.rows("keys")[0]["revoked_at"] is not None
    assert "milepost keys lists them" in program.complaint("keys", "revoke", "nobody", code=1)


def test_a_layout_of_another_release_is_said_in_one_line(program: Program) -> None:
    program.call("ls")
    url = program.environment["MILEPOST_URL"]

    def write(layout: str) -> None:
        if url.startswith("sqlite"):
            with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file, file:
                file.execute("UPDATE state SET value = ? WHERE name = 'layout'", (layout,))
        else:
            with redis.Redis.from_url(url) as client:
                client.set(f"{{{program.environment['MILEPOST_NAMESPACE']}}}:layout", layout)

    write("7")
    for command in ("ls", "doctor", "migrate"):
        assert "layout 7, this release reads 1; upgrade milepost" in program.complaint(command, code=1)
    write("0")
    assert "layout 0, this release reads 1; run: milepost migrate" in program.complaint("ls", code=1)
    assert "layout 0, which no release has written" in program.complaint("migrate", code=1)
    write("1")
    assert program.rows("migrate") == [{"from": 1, "to": 1, "moved": False}]


def test_completion_knows_live_ids(filled: Program) -> None:
    script = filled.call("completion", "bash")
    assert "_MILEPOST_COMPLETE=bash_complete" in script
    answer = filled.call(
        _MILEPOST_COMPLETE="bash_complete", COMP_WORDS="milepost show a-", COMP_CWORD="2", code=None,
    )  # fmt: skip
    assert {line.partition(",")[2] for line in answer.splitlines()} >= {"a-done", "a-bad"}
