"""`milepost watch` and its exit codes, `logs -f`, `submit` and `worker`: jobs that others run."""

from __future__ import annotations

import json
import signal
import time

from tests.cli.programs import Program, Started, until

APP = "tests.cli.work:jobs"


def working(program: Program, *options: str) -> Started:
    """A worker that has said that it is there."""
    worker = program.start("worker", APP, *options)
    until(lambda: program.rows("workers"))
    return worker


def test_the_exit_code_says_how_jobs_ended(program: Program) -> None:
    working(program, "-c", "4")
    good = program.call("submit", "count", "3").strip()
    also_good = program.call("submit", "count", "4").strip()
    bad = program.call("submit", "broken", "alas").strip()
    long = program.call("submit", "count", "100000").strip()
    program.call("watch", good, also_good, code=0)
    program.call("watch", good, bad, code=1)
    program.call("watch", long, "--timeout", "1s", code=124)
    watching = program.start("watch", long)
    time.sleep(0.3)
    program.call("cancel", long, "--wait")
    assert watching.finish()[0] == 3
    program.call("watch", bad, long, code=1)
    program.call("watch", good, long, code=3)
    program.call("watch", "no-such-job", code=1)
    program.call("watch", "--timeout", "soon", code=2)


def test_json_lines_end_with_the_ended_jobs(milepost: Program) -> None:
    working(milepost)
    job_id = milepost.call("submit", "count", "300").strip()
    lines = [json.loads(line) for line in milepost.call("watch", job_id, "--json").splitlines()]
    assert lines[-1]["status"] == "completed"
    assert lines[-1]["job_id"] == job_id
    assert lines[-2]["kind"] == "completed"
    assert all("at" in line or line["kind"] == "skipped" for line in lines[:-1])


def test_a_watch_on_a_terminal_shows_a_bar_and_leaves_the_job_alone(milepost: Program) -> None:
    working(milepost)
    job_id = milepost.call("submit", "count", "100000").strip()
    for columns in (80, 160):
        terminal = milepost.on_terminal("watch", job_id, columns=columns)
        text = terminal.wait_for("numbers")
        assert "Counting" in text
        assert "━" in text
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert "the jobs go on" in terminal.text
        assert terminal.width <= columns
    assert milepost.rows("show", job_id)[0]["status"] == "running"


def test_a_worker_in_a_pipe_logs_json_and_drains(milepost: Program) -> None:
    worker = working(milepost)
    milepost.call("submit", "count", "3", "--watch")
    milepost.call("submit", "broken", "alas", "-w", code=1)
    long = milepost.call("submit", "count", "100000").strip()
    until(lambda: milepost.rows("show", long)[0]["status"] == "running")
    worker.signal(signal.SIGTERM)
    code, out, _ = worker.finish()
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    ended = [(line["event"], line["job_type"]) for line in lines if line.get("event") not in (None, "running")]
    assert ended == [("completed", "count"), ("failed", "broken"), ("released", "count")]
    assert milepost.rows("show", long)[0]["status"] == "pending"


def test_a_worker_on_a_terminal_shows_what_runs(milepost: Program) -> None:
    terminal = milepost.on_terminal("worker", APP, "-c", "2")
    until(lambda: milepost.rows("workers"))
    milepost.call("submit", "count", "100000")
    text = terminal.wait_for("numbers")
    assert "1/2 running" in text
    assert "serves count, deaf, broken, gentle" in text
    terminal.press("\x03")
    assert terminal.finish() == 0
    assert "1 released" in terminal.text


def test_logs_are_followed_to_the_end(milepost: Program) -> None:
    working(milepost)
    job_id = milepost.call("submit", "broken", "alas").strip()
    assert "about to fail" in milepost.call("logs", "-f", job_id)
    [line] = [json.loads(line) for line in milepost.call("logs", "--json", job_id).splitlines()]
    assert (line["job_id"], line["text"], line["level"]) == (job_id, "about to fail", "info")


def test_types_are_listed_paused_and_resumed(program: Program) -> None:
    working(program)
    assert {known["name"] for known in program.rows("types")} == {"count", "deaf", "broken", "gentle"}
    assert "N [pause=...] [note=...]" in program.call("types")
    assert "paused" in program.call("types", "pause", "count")
    job_id = program.call("submit", "count", "1").strip()
    program.call("watch", job_id, "--timeout", "1", code=124)
    assert program.rows("types", "resume", "count")[0]["paused"] is False
    program.call("watch", job_id, "--timeout", "20", code=0)
    assert program.rows("types", "limit", "count", "2")[0]["limit"] == 2
    assert program.rows("types", "limit", "count", "none")[0]["limit"] is None


def test_submit_checks_parameters_and_keys(milepost: Program) -> None:
    assert "no worker has published 'count'" in milepost.complaint("submit", "count", "1", code=2)
    job_id = milepost.call("submit", "count", "1", "--app", APP, "--key", "k", "--label", "owner=ana").strip()
    assert milepost.call("submit", "count", "2", "--app", APP, "--key", "k").strip() == job_id
    refused = milepost.complaint("submit", "count", "2", "--app", APP, "--key", "k", "--on-duplicate", "refuse", code=1)
    assert job_id in refused
    later = milepost.rows("submit", "count", "2", "--app", APP, "--delay", "2h", "--priority", "7")[0]
    assert later["not_before"] is not None
    assert later["priority"] == 7
    assert "usage: milepost submit count" in milepost.complaint("submit", "count", "--app", APP, code=2)
