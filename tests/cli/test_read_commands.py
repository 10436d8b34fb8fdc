"""The commands that show jobs, workers and numbers, on every kind of store."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.stores_fixture import StoreFixture, covers


@covers("tree")
def test_tree(where: StoreFixture) -> None:
    with where.manager() as manager:
        manager.create_job("root")
        for name in ("left", "right"):
            manager.create_job(name, parent_id="root")
        manager.create_job("leaf", parent_id="left")
        manager.update_job("leaf", "running", 0.5)
    lines = where.call("tree", "root").splitlines()
    assert [line.split("  ")[-2].strip() for line in lines] == ["root", "left", "leaf", "right"]
    assert lines[2].startswith("    running     50%  generic  leaf")
    assert [job["depth"] for job in where.rows("tree", "root")] == [0, 1, 2, 1]
    assert where.call("tree", "-n", "1", "root").splitlines()[1] == "  ... 1 more"


@covers("tree")
def test_tree_prints_no_control_characters_of_a_job(where: StoreFixture) -> None:
    with where.manager() as manager:
        manager.create_job("root")
        manager.update_job("root", "completed", result="\x1b]0;title\x07 \x9b31m \u202e done")
    shown = where.call("tree", "root")
    assert shown.rstrip().endswith("done")
    assert not set("\x1b\x07\x9b\u202e") & set(shown)


@covers("ls")
def test_ls_in_pipe_is_aligned_and_uncut(filled: StoreFixture) -> None:
    lines = filled.call("ls").splitlines()
    assert lines[0].split() == ["ID", "TYPE", "STATUS", "%", "CREATED", "ACTIVITY"]
    assert [line.split()[0] for line in lines[1:]] == ["d-next", "c-now", "b-gone", "a-bad", "a-done"]
    assert "\x1b" not in "".join(lines)
    assert len({line.index(" generic ") for line in lines[1:]}) == 1
    assert all(line == line.rstrip() for line in lines)


@covers("ls")
def test_ls_takes_filters(filled: StoreFixture) -> None:
    for terms, found in (
        (["status:failed"], {"a-bad"}),
        (["status:failed,running"], {"a-bad", "c-now"}),
        (["is:active"], {"c-now", "d-next"}),
        (["label.owner:ana", "not.status:pending"], {"a-done", "a-bad", "b-gone", "c-now"}),
        (["created:1h", "title of b"], {"b-gone"}),
        (["id:a-"], {"a-done", "a-bad"}),
        (["status:failed", "status:running", "-n", "1"], {"c-now"}),
    ):
        assert {job["job_id"] for job in filled.rows("ls", *terms)} == found, terms
    assert filled.call("ls", "status:failed", "status:running", "nothing").splitlines()[1:] == []
    assert "unknown status 'foo'" in filled.error_line("ls", "status:foo", code=2)


@covers("ls")
def test_ls_watch_in_pipe_prints_line_per_change(working: StoreFixture) -> None:
    working.fill("a-now", "running")
    out = working.start("ls", "-w", "--json").process.stdout
    assert out is not None
    lines = (json.loads(line) for line in out)
    assert next(lines)["job_id"] == "a-now"
    job_id = working.call("submit", "count", "3").strip()
    ended = next(job for job in lines if job["status"] == "completed")
    assert (ended["job_id"], ended["result"]["counted"]) == (job_id, 3)


@covers("show")
def test_show(filled: StoreFixture) -> None:
    assert filled.rows("show", "b")[0]["job_id"] == "b-gone"
    assert filled.rows("show", "@last")[0]["job_id"] == "d-next"
    assert "a-bad, a-done" in filled.error_line("show", "a-", code=2)
    assert "milepost ls" in filled.error_line("show", "x", code=1)
    assert "not found" in filled.error_line("show", "ffffffff", code=1)
    shown = filled.call("show", "a-bad")
    for part in ("generic", "a-bad", "failed", "47%", "Failed", "owner=ana", "title of a-bad"):
        assert part in shown
    assert "milepost rm a-bad" in shown
    assert re.search(r"created +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d", shown)
    assert re.search(r"created .*UTC", filled.call("show", "a-bad", "--utc"))


@covers("watch")
def test_watch_exit_code_reflects_outcomes(working: StoreFixture) -> None:
    good = working.call("submit", "count", "3").strip()
    also_good = working.call("submit", "count", "4").strip()
    bad = working.call("submit", "broken", "alas").strip()
    long = working.call("submit", "count", "100000").strip()
    working.call("watch", good, also_good, code=0)
    working.call("watch", good, bad, code=1)
    assert "the jobs continue" in working.error_line("watch", long, "--timeout", "0.5", code=124)
    working.call("cancel", long, "--wait")
    working.call("watch", good, long, code=3)
    working.call("watch", bad, long, code=1)
    assert "not found" in working.error_line("watch", "no-such-job", code=1)
    assert "--timeout" in working.error_line("watch", "--timeout", "soon", code=2)
    assert working.rows("watch", good)[-1] == working.rows("show", good)[0]


@covers("logs")
def test_logs(working: StoreFixture) -> None:
    job_id = working.call("submit", "broken", "alas").strip()
    assert "about to fail" in working.call("logs", "-f", job_id)
    [line] = working.rows("logs")
    assert (line["job_id"], line["text"], line["level"]) == (job_id, "about to fail", "info")


@covers("failures")
def test_failures_are_grouped_with_usable_filter(working: StoreFixture) -> None:
    for words in (("a",), ("b",), ("c", "kind=key")):
        working.call("submit", "broken", *words, "--watch", code=1)
    groups = working.rows("failures")
    assert [(group["count"], group["group"].partition("@")[0]) for group in groups] == [
        (2, "ValueError"),
        (1, "KeyError"),
    ]
    assert len(working.rows("ls", *groups[0]["q"].split())) == 2
    assert groups[0]["message"] == "b"
    assert "ValueError@sample_app.py" in working.call("failures")


@covers("stats")
def test_stats(filled: StoreFixture) -> None:
    [generic] = filled.rows("stats")
    counts = {name: generic[name] for name in ("total", "pending", "running", "completed", "failed", "cancelled")}
    assert counts == {"total": 5, "pending": 1, "running": 1, "completed": 1, "failed": 1, "cancelled": 1}
    assert generic["success"] == 0.5
    assert "50%" in filled.call("stats", "created:1d")


@covers("workers")
def test_workers(working: StoreFixture) -> None:
    assert set(working.rows("workers")[0]["types"]) == {"count", "deaf", "broken", "gentle", "leave"}
    [line] = working.call("workers").splitlines()[1:]
    assert "idle" in line
    assert "count, deaf, broken, gentle" in line


@covers("top")
def test_top(filled: StoreFixture) -> None:
    pytest.importorskip("textual")
    terminal = filled.on_terminal("top", "status:running")
    terminal.wait_for("message of c-now")
    terminal.press("c")
    terminal.wait_for("No jobs match")
    terminal.press("q")
    assert terminal.finish() == 0
    assert filled.rows("show", "c-now")[0]["status"] == "cancelled"
