"""`milepost run`: a job in this process, shared with others, taken up again after a kill, cancelled with Ctrl-C."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milepost.web import auth
from tests.chaos.calibration import slowness
from tests.cli.places import Place
from tests.cli.programs import Program, until
from tests.services import RedisServer
from tests.waiting import freeze

APP = ("--app", "tests.cli.work:jobs")
SLOW = ("run", *APP, "count", "100000")


def running(program: Program) -> dict[str, Any] | None:
    """The job that runs and has got somewhere, or None."""
    return next((job for job in program.rows("ls", "status:running") if job["progress"] > 0), None)


def test_a_run_ends_with_its_result_and_the_next_steps(milepost: Program) -> None:
    out = milepost.call("run", *APP, "count", "5", "note=hello")
    lines = out.splitlines()
    assert any(line.startswith("Counting") and "5 numbers" in line for line in lines)
    assert "Completed in" in out
    assert "counted  5" in out
    [job] = milepost.rows("ls")
    assert f"milepost show {job['job_id']}" in out
    assert (job["status"], job["progress"], job["job_type"]) == ("completed", 1.0, "count")
    assert job["metadata"]["params"] == {"n": 5, "note": "hello"}


def test_jobs_are_in_the_users_state_folder_by_default(milepost: Program, tmp_path: Path) -> None:
    milepost.call("run", *APP, "count", "1")
    assert (tmp_path / "state" / "milepost" / "jobs.db").exists()
    assert (tmp_path / "state" / "milepost").stat().st_mode & 0o077 == 0


def test_two_processes_share_a_job_and_the_second_cancels_it(program: Program) -> None:
    first = program.start(*SLOW)
    job = until(lambda: running(program))
    later = until(lambda: (now := running(program)) and now["progress"] > job["progress"] and now)
    assert later["job_id"] == job["job_id"]
    [cancelled] = program.rows("cancel", job["job_id"], "--wait", "--reason", "enough")
    code, out, _ = first.finish()
    assert code == 3
    assert "(enough)" in out
    receipt = cancelled["receipt"]
    assert cancelled["status"] == "cancelled"
    assert (receipt["confirmed"], receipt["how"], receipt["reason"]) == (True, "cooperative", "enough")


def test_killed_and_started_again_it_goes_on(program: Program) -> None:
    words = ("run", *APP, "count", "400")
    first = program.start(*words, COUNT_PAUSE="0.5")
    job = until(lambda: running(program))
    until(lambda: (running(program) or job)["progress"] > job["progress"])
    first.signal(signal.SIGKILL)
    first.finish()
    out = program.call(*words, "--json")
    ended = json.loads(out.splitlines()[-1])
    assert ended["job_id"] == job["job_id"]
    assert ended["status"] == "completed"
    assert 0 < ended["result"]["first"] < 400
    assert ended["result"]["first"] + ended["result"]["counted"] == 400


def test_a_job_that_is_taken_up_says_so(milepost: Program) -> None:
    first = milepost.start(*SLOW)
    job = until(lambda: running(milepost))
    first.signal(signal.SIGKILL)
    first.finish()
    second = milepost.on_terminal(*SLOW)
    text = second.wait_for("Counting")
    assert "Taking up job" in text
    assert "its process died at" in text
    assert until(lambda: running(milepost))["job_id"] == job["job_id"]


def test_a_job_that_runs_elsewhere_is_not_run_twice(milepost: Program) -> None:
    quick = {"MILEPOST_LEASE": "4"}
    milepost.start(*SLOW, **quick)
    job = until(lambda: running(milepost))
    code, _, err = milepost.start(*SLOW, **quick).finish()
    assert code == 1
    assert f"milepost watch {job['job_id']}" in err
    assert err.count("\n") == 1


def test_a_lease_that_is_not_renewed_is_waited_for_and_taken_over(milepost: Program) -> None:
    quick = {"MILEPOST_LEASE": str(4 * slowness())}
    first = milepost.start(*SLOW, **quick)
    job = until(lambda: running(milepost))
    freeze(first.process.pid, f"sqlite:///{milepost.folder}/state/milepost/jobs.db")
    second = milepost.on_terminal(*SLOW, columns=160, **quick)
    assert "waiting until its lease runs out" in second.wait_for("was not heard to end")
    second.wait_for("Taking up job")
    assert until(lambda: running(milepost))["job_id"] == job["job_id"]
    first.signal(signal.SIGCONT)
    code, _, err = first.finish()
    assert code == 1
    assert "another run has taken it over" in err


def test_what_is_ended_before_its_job_is_its_own_has_the_exit_code_of_the_signal(milepost: Program) -> None:
    first = milepost.start(*SLOW)
    until(lambda: running(milepost))
    freeze(first.process.pid, f"sqlite:///{milepost.folder}/state/milepost/jobs.db")
    for number, expected in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        second = milepost.start(*SLOW)
        assert second.process.stdout is not None
        assert "was not heard to end" in second.process.stdout.readline()
        second.signal(number)
        assert second.finish()[0] == expected


def test_ctrl_c_cancels_with_a_receipt(program: Program) -> None:
    terminal = program.on_terminal(*SLOW)
    until(lambda: running(program))
    terminal.wait_for("%")
    terminal.press("\x03")
    assert terminal.finish() == 130
    assert "Cancelled by" in terminal.text
    assert "Traceback" not in terminal.text
    [job] = program.rows("ls")
    assert job["status"] == "cancelled"
    assert (job["receipt"]["confirmed"], job["receipt"]["reason"]) == (True, "Ctrl-C")


def test_a_bar_says_how_fast_it_goes_and_how_long_it_still_needs(milepost: Program) -> None:
    milepost.call("run", *APP, "count", "200")  # with one stage and no weights, only an earlier run tells what follows
    terminal = milepost.on_terminal(*SLOW)
    terminal.wait_for("/s  about")
    assert " left" in terminal.text
    terminal.press("\x03")
    assert terminal.finish() == 130


def test_the_second_ctrl_c_ends_code_that_does_not_look(milepost: Program) -> None:
    terminal = milepost.on_terminal("run", *APP, "deaf", "60")
    until(lambda: running(milepost))
    terminal.press("\x03")
    terminal.wait_for("Ctrl-C again")
    assert until(lambda: milepost.rows("ls", "status:cancelled"))
    terminal.press("\x03")
    assert terminal.finish() == 130
    [job] = milepost.rows("ls")
    assert (job["status"], job["receipt"]["confirmed"]) == ("cancelled", True)


def test_ctrl_c_does_not_wait_for_an_endpoint_that_is_silent(milepost: Program) -> None:
    (milepost.folder / "a.txt").write_text("some text")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        endpoint = f"endpoint=http://127.0.0.1:{silent.getsockname()[1]}/v1"
        run = milepost.start("run", "ingestion", "a.txt", "database=a.db", "model=http", endpoint)
        with silent.accept()[0]:
            run.signal(signal.SIGINT)
            code, out, _ = run.finish(timeout=30)
    assert code == 130
    assert "Cancelled" in out


def test_sigterm_cancels_as_well(milepost: Program) -> None:
    started = milepost.start(*SLOW)
    until(lambda: running(milepost))
    started.signal(signal.SIGTERM)
    code, _, _ = started.finish()
    assert code == 143
    [job] = milepost.rows("ls")
    assert (job["status"], job["receipt"]["reason"]) == ("cancelled", "SIGTERM")


def test_a_failure_has_its_exit_code_and_its_traceback(milepost: Program) -> None:
    out = milepost.call("run", *APP, "broken", "no", "such", "luck", code=1)
    assert "no such luck" in out
    assert "ValueError" in out
    shown = milepost.call("show")
    assert "in broken" in shown
    assert "about to fail" in shown
    assert "about to fail" in milepost.call("logs")


def test_an_async_job_runs_and_is_cancelled(milepost: Program) -> None:
    assert json.loads(milepost.call("run", *APP, "gentle", "3", "--json").splitlines()[-1])["result"] == 3
    started = milepost.start("run", *APP, "gentle", "100000")
    until(lambda: running(milepost))
    started.signal(signal.SIGINT)
    assert started.finish()[0] == 130
    assert milepost.rows("ls", "status:cancelled")[0]["receipt"]["confirmed"] is True


def test_json_lines_end_with_the_ended_job(milepost: Program) -> None:
    lines = [json.loads(line) for line in milepost.call("--json", "run", *APP, "count", "20").splitlines()]
    assert lines[-1]["status"] == "completed"
    assert lines[-1]["result"] == {"first": 0, "last": 19, "counted": 20}
    assert "completed" in [line.get("kind") for line in lines[:-1]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "nothing"), "there are ingestion"),
        (("run", "ingestion", ""), "an empty path names nothing; this folder is ."),
        (("run", *APP, "count"), "n missing; usage: milepost run count N [pause=...] [note=...]"),
        (("run", *APP, "count", "x"), "n: 'x' is not a whole number"),
        (("run", *APP, "count", "1", "2", "3", "4"), "'4' is one argument too many"),
        (("run", *APP, "count", "n=1", "m=2"), "'m' is not a parameter of count"),
        (("run", *APP, "broken", "a", "kind=other"), "kind: 'other' is not one of value, key"),
        (("run", "--app", "no.such.module", "count", "1"), "there is no module"),
        (("run", "--app", "tests.cli.work:nothing", "count", "1"), "is not a Jobs object"),
        (("run", *APP, "count", "--n", "1"), "A parameter of the job is written n=..."),
        (("submit", *APP, "count", "-5"), "A parameter of the job is written after --"),
        (("worker", "./myapp.py:jobs"), "is not the name of a module; write MODULE:APP"),
        (("run", "--app", "", "count", "1"), "'' is not the name of a module"),
        (("types", "limit", "count", "\u00b2"), "is neither a number from 1"),
        (("search", " "), "the QUERY is empty"),
        (("neighbours", ""), "the NAME is empty"),
        (("lss",), "did you mean 'ls'"),
        (("ls", "status:foo"), "'foo' is not a status"),
        (("ls", "--url", "nowhere"), "has no scheme"),
        (("ls", "--url", "memory://"), "sqlite:///jobs.db"),
    ],
)
def test_usage_errors_say_in_one_line_what_to_do(milepost: Program, words: tuple[str, ...], said: str) -> None:
    assert said in milepost.complaint(*words, code=2)


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_what_was_not_begun_does_not_go_on(where: Place) -> None:
    for words in (("ingestion", ".", "chunk_tokens=2"), ("ingestion", ".", "model=nonsense"), ("clustering",)):
        out = where.call("run", *words, code=1)
        assert "milepost show" in out
        assert "the same command" not in out


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://127.0.0.1:1", "is it running? --url or MILEPOST_URL names another store"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1: the server cannot be reached"),
        (
            "sqlite:////proc/jobs.db",
            "its folder must exist, and both must be readable and writable for this user; --url",
        ),
    ],
)
def test_a_store_that_is_down_says_so(milepost: Program, url: str, said: str) -> None:
    assert said in milepost.complaint("ls", "--url", url, code=1)


def test_a_wrong_password_is_not_taken_for_a_store_that_is_down(
    milepost: Program, start_redis: Callable[..., RedisServer]
) -> None:
    redis = start_redis(password="secret")
    complaint = milepost.complaint("ls", "--url", redis.url_for(None, "wrong"), code=1)
    assert "refuses the user or password of the URL" in complaint
    assert "running" not in complaint
    assert "wrong@" not in complaint
    milepost.call("ls", "--url", redis.url)


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_a_wrong_key_says_where_keys_come_from(where: Place) -> None:
    reader = where.call("keys", "create", "reader", "--scope", "jobs:read").strip()
    with where.served(auth.api_keys()):
        for key, command, said in (
            ("", "ls", "A key is needed"),
            ("wrong", "ls", "not valid"),
            (reader, "doctor", "admin"),
        ):
            where.environment["MILEPOST_KEY"] = key
            complaint = where.complaint(command, code=1)
            assert said in complaint
            assert "MILEPOST_KEY, and made beside the store: milepost keys create NAME" in complaint
        where.call("ls")


@pytest.mark.parametrize("where", ["server"], indirect=True)
def test_beside_a_server_it_submits_watches_and_asks_at_ctrl_c(working: Place) -> None:
    terminal = working.on_terminal("run", "count", "100000")
    terminal.wait_for("numbers")
    terminal.press("\x03")
    terminal.wait_for("c cancels the job")
    terminal.press("d\r")
    assert terminal.finish() == 130
    [job] = working.rows("ls", "status:running")
    again = working.on_terminal("run", "count", "100000")
    again.wait_for("numbers")
    assert [now["job_id"] for now in working.rows("ls", "status:running")] == [job["job_id"]]
    again.press("\x03")
    again.wait_for("c cancels the job")
    again.press("c\r")
    assert again.finish() == 3
    assert working.rows("show", job["job_id"])[0]["receipt"]["confirmed"] is True
