"""`milepost watch` and `milepost worker` as processes of their own, on a terminal and in a pipe: jobs that others run."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.calibration import slowness
from tests.cli.subprocesses import CommandRunner, RunningCommand, until
from tests.redis_server import RedisServer

pytestmark = pytest.mark.timing

APP = "tests.cli.sample_app:jobs"


def working(program: CommandRunner, *options: str) -> RunningCommand:
    """Return a worker that has registered itself."""
    worker = program.start("worker", APP, *options)
    until(lambda: program.rows("workers"))
    return worker


def test_watch_json_ends_with_ended_jobs(milepost: CommandRunner) -> None:
    job_id = milepost.call("submit", "count", "30", "--app", APP).strip()
    printed = milepost.start("watch", job_id, "--json").process.stdout
    assert printed is not None
    lines = [json.loads(printed.readline())]  # it watches before the job starts, however slow the machine is
    working(milepost)
    lines += [json.loads(line) for line in printed]
    assert lines[-1]["status"] == "completed"
    assert lines[-1]["job_id"] == job_id
    assert lines[-2]["kind"] == "completed"
    assert all("at" in line or line["kind"] == "skipped" for line in lines[:-1])


def test_ctrl_c_in_watch_leaves_job_running(milepost: CommandRunner) -> None:
    working(milepost)
    job_id = milepost.call("submit", "count", "100000").strip()
    for columns in (80, 160):
        terminal = milepost.on_terminal("watch", job_id, columns=columns)
        text = terminal.wait_for("numbers")
        assert "Counting" in text
        assert "━" in text
        terminal.press("\x03")
        assert terminal.finish() == 130
        assert "the jobs continue" in terminal.text
        assert terminal.width <= columns
    assert milepost.rows("show", job_id)[0]["status"] == "running"
    terminal = milepost.on_terminal("watch", job_id)
    terminal.wait_for("numbers")
    milepost.call("cancel", job_id)
    assert terminal.finish() == 3
    assert "Cancelled by" in terminal.text


def test_worker_in_pipe_logs_json_and_drains(milepost: CommandRunner) -> None:
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


def test_worker_on_terminal_shows_running_jobs(milepost: CommandRunner) -> None:
    terminal = milepost.on_terminal("worker", APP, "-c", "2")
    until(lambda: milepost.rows("workers"))
    milepost.call("submit", "count", "100000")
    text = terminal.wait_for("numbers")
    assert "1/2 running" in text
    assert "runs count, deaf, broken, gentle" in text
    terminal.press("\x03")
    assert terminal.finish() == 0
    assert "1 released" in terminal.text


@pytest.mark.parametrize("words", [("watch",), ("ls", "-w")])
def test_following_commands_survive_store_outage(
    tmp_path: Path, start_redis: Callable[..., RedisServer], words: tuple[str, ...]
) -> None:
    redis = start_redis(appendonly="always")
    with CommandRunner(tmp_path, MILEPOST_URL=redis.url) as program:
        job_id = program.call("submit", "--app", APP, "count", "1").strip()
        terminal, piped = program.on_terminal(*words), program.start(*words)
        assert piped.process.stdout is not None
        assert piped.process.stderr is not None
        assert "pending" in piped.process.stdout.readline()
        terminal.wait_for(job_id[:8])
        redis.kill()
        assert "retrying until Ctrl-C" in piped.process.stderr.readline()
        terminal.wait_for("retrying until")
        redis.start()
        program.call("cancel", job_id)
        terminal.wait_for("Cancelled" if words == ("watch",) else "⊘")
        assert any("ancelled" in line for line in iter(piped.process.stdout.readline, ""))
        if words == ("watch",):
            assert terminal.finish() == 3
            assert piped.finish()[0] == 3


@pytest.mark.slow
def test_show_says_where_killed_worker_was_and_who_continued(program: CommandRunner) -> None:
    """The list of attempts did not say how one ended, so that a killed worker was hard to find."""
    program.environment["MILEPOST_LEASE"] = str(2 * slowness())
    first = working(program)
    job_id = program.call("submit", "count", "1000", "pause=0.05").strip()
    until(lambda: program.rows("show", job_id)[0]["stages"])
    until(lambda: program.rows("show", job_id)[0]["stages"][0]["done"] > 2)
    first.signal(signal.SIGKILL)
    second = program.start("worker", APP)

    def shown() -> str:
        return program.call("show", job_id)

    until(lambda: "  lost " in program.call("show", job_id))
    until(lambda: program.rows("show", job_id)[0]["status"] == "running")
    lost, now = program.call("show", job_id).partition("Runs\n")[2].splitlines()[:2]
    where = r"at \d+ of 1,000 numbers in Counting: lease expired \(last held by"
    assert re.search(rf":{first.process.pid}  lost \d\d:\d\d:\d\d {where}", lost)
    resumed = until(lambda: re.search(r"resumed at item (\d+) of 1000, \d+ passed over; running", shown()))
    assert int(resumed[1]) > 1
    assert f":{second.process.pid}  " in now
    program.call("cancel", job_id)


def test_short_id_of_new_job_stays_unambiguous(milepost: CommandRunner) -> None:
    """The first 8 characters named the job until another one was made within a minute."""
    minute = f"{int((time.time() + 3600) * 1000) >> 16:08x}"  # it does not end while the test runs
    job_id, other_id = (f"{minute}-{place}000-7000-8000-000000000000" for place in "12")
    milepost.call("submit", "count", "1", "--app", APP, "--job-id", job_id)
    terminal = milepost.on_terminal("show", job_id, columns=160)
    assert terminal.finish() == 0
    [short] = re.findall(r"milepost watch ([0-9a-f-]+)", terminal.text)
    assert short == job_id[:13]
    milepost.call("submit", "count", "1", "--app", APP, "--job-id", other_id)
    assert milepost.rows("show", short)[0]["job_id"] == job_id
