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
from tests.cli.stores_fixture import StoreFixture
from tests.cli.subprocesses import CommandRunner, until
from tests.redis_server import RedisServer
from tests.waiting import freeze

pytestmark = pytest.mark.timing

APP = ("--app", "tests.cli.sample_app:jobs")
SLOW = ("run", *APP, "count", "100000")


def running(program: CommandRunner) -> dict[str, Any] | None:
    """Return the running job once it has made progress, else None."""
    return next((job for job in program.rows("ls", "status:running") if job["progress"] > 0), None)


def test_run_prints_result_and_next_steps(milepost: CommandRunner) -> None:
    out = milepost.call("run", *APP, "count", "5", "note=hello")
    lines = out.splitlines()
    assert any(line.startswith("Counting") and "5 numbers" in line for line in lines)
    assert "Completed in" in out
    assert "counted  5" in out
    [job] = milepost.rows("ls")
    assert f"milepost show {job['job_id']}" in out
    assert (job["status"], job["progress"], job["job_type"]) == ("completed", 1.0, "count")
    assert job["metadata"]["params"] == {"n": 5, "note": "hello"}


def test_default_store_is_in_state_folder(milepost: CommandRunner, tmp_path: Path) -> None:
    milepost.call("run", *APP, "count", "1")
    assert (tmp_path / "state" / "milepost" / "jobs.db").exists()
    assert (tmp_path / "state" / "milepost").stat().st_mode & 0o077 == 0


def test_cancel_from_second_process(program: CommandRunner) -> None:
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


def test_run_resumes_after_kill(program: CommandRunner) -> None:
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


def test_resumed_run_prints_notice(milepost: CommandRunner) -> None:
    first = milepost.start(*SLOW)
    job = until(lambda: running(milepost))
    first.signal(signal.SIGKILL)
    first.finish()
    second = milepost.on_terminal(*SLOW)
    text = second.wait_for("Counting")
    assert "Resuming job" in text
    assert "its process died at" in text
    assert until(lambda: running(milepost))["job_id"] == job["job_id"]


def test_job_running_elsewhere_is_not_run_twice(milepost: CommandRunner) -> None:
    quick = {"MILEPOST_LEASE": str(4 * slowness())}
    milepost.start(*SLOW, **quick)
    job = until(lambda: running(milepost))
    code, _, err = milepost.start(*SLOW, **quick).finish()
    assert code == 1
    assert f"milepost watch {job['job_id']}" in err
    assert err.count("\n") == 1


def test_run_takes_over_expired_lease(milepost: CommandRunner) -> None:
    quick = {"MILEPOST_LEASE": str(4 * slowness())}
    first = milepost.start(*SLOW, **quick)
    job = until(lambda: running(milepost))
    freeze(first.process.pid, f"sqlite:///{milepost.folder}/state/milepost/jobs.db")
    second = milepost.on_terminal(*SLOW, columns=160, **quick)
    assert "waiting for its lease to expire" in second.wait_for("may still run")
    second.wait_for("Resuming job")
    assert until(lambda: running(milepost))["job_id"] == job["job_id"]
    first.signal(signal.SIGCONT)
    code, _, err = first.finish()
    assert code == 1
    assert "another run has taken over job" in err


def test_signal_before_start_sets_exit_code(milepost: CommandRunner) -> None:
    first = milepost.start(*SLOW)
    until(lambda: running(milepost))
    freeze(first.process.pid, f"sqlite:///{milepost.folder}/state/milepost/jobs.db")
    for number, expected in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        second = milepost.start(*SLOW)
        assert second.process.stdout is not None
        assert "may still run" in second.process.stdout.readline()
        second.signal(number)
        assert second.finish()[0] == expected


def test_ctrl_c_cancels_with_receipt(program: CommandRunner) -> None:
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


def test_progress_bar_shows_rate_and_time_left(milepost: CommandRunner) -> None:
    milepost.call("run", *APP, "count", "200")  # with one stage and no weights, only an earlier run tells what follows
    terminal = milepost.on_terminal(*SLOW)
    terminal.wait_for("/s  about")
    assert " left" in terminal.text
    terminal.press("\x03")
    assert terminal.finish() == 130


def test_second_ctrl_c_ends_unresponsive_code(milepost: CommandRunner) -> None:
    terminal = milepost.on_terminal("run", *APP, "deaf", "60")
    until(lambda: running(milepost))
    terminal.press("\x03")
    terminal.wait_for("Ctrl-C again")
    assert until(lambda: milepost.rows("ls", "status:cancelled"))
    terminal.press("\x03")
    assert terminal.finish() == 130
    [job] = milepost.rows("ls")
    assert (job["status"], job["receipt"]["confirmed"]) == ("cancelled", True)


def test_ctrl_c_does_not_wait_for_silent_endpoint(milepost: CommandRunner) -> None:
    (milepost.folder / "a.txt").write_text("some text")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        endpoint = f"endpoint=http://127.0.0.1:{silent.getsockname()[1]}/v1"
        run = milepost.start("run", "ingestion", "a.txt", "database=a.db", "model=http", endpoint)
        with silent.accept()[0]:
            run.signal(signal.SIGINT)
            code, out, _ = run.finish()
    assert code == 130
    assert "Cancelled" in out


def test_sigterm_cancels(milepost: CommandRunner) -> None:
    started = milepost.start(*SLOW)
    until(lambda: running(milepost))
    started.signal(signal.SIGTERM)
    code, _, _ = started.finish()
    assert code == 143
    [job] = milepost.rows("ls")
    assert (job["status"], job["receipt"]["reason"]) == ("cancelled", "SIGTERM")


def test_failed_run_has_exit_code_and_traceback(milepost: CommandRunner) -> None:
    out = milepost.call("run", *APP, "broken", "no", "such", "luck", code=1)
    assert "no such luck" in out
    assert "ValueError" in out
    shown = milepost.call("show")
    assert "in broken" in shown
    assert "about to fail" in shown
    assert "about to fail" in milepost.call("logs")


@pytest.mark.parametrize("code", ["0", "3"])
def test_run_of_job_that_calls_exit_fails(milepost: CommandRunner, code: str) -> None:
    """`milepost run` ended with the code of the handler and printed nothing; the error of the record was "0"."""
    assert f"the code called sys.exit({code})" in milepost.call("run", *APP, "leave", code, code=1)
    assert milepost.rows("show")[0]["error"] == f"the code called sys.exit({code})"


def test_async_job_runs_and_is_cancelled(milepost: CommandRunner) -> None:
    assert json.loads(milepost.call("run", *APP, "gentle", "3", "--json").splitlines()[-1])["result"] == 3
    started = milepost.start("run", *APP, "gentle", "100000")
    until(lambda: running(milepost))
    started.signal(signal.SIGINT)
    assert started.finish()[0] == 130
    receipt = milepost.rows("ls", "status:cancelled")[0]["receipt"]
    assert (receipt["confirmed"], receipt["how"]) == (True, "task_cancelled")


def test_json_output_ends_with_ended_job(milepost: CommandRunner) -> None:
    lines = [json.loads(line) for line in milepost.call("--json", "run", *APP, "count", "20").splitlines()]
    assert lines[-1]["status"] == "completed"
    assert lines[-1]["result"] == {"first": 0, "last": 19, "counted": 20}
    events = lines[:-1]  # only the snapshot, if the job was faster
    assert (events[0]["kind"], events[-1]["status"]) == ("snapshot", "completed")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "nothing"), "available: ingestion"),
        (("run", "ingestion", ""), "empty path; use . for the current directory"),
        (("run", *APP, "count"), "missing n; usage: milepost run count N [pause=...] [note=...]"),
        (("run", *APP, "count", "x"), "n: 'x' is not a whole number"),
        (("run", *APP, "count", "1", "2", "3", "4"), "unexpected argument '4'"),
        (("run", *APP, "count", "n=1", "m=2"), "count has no parameter 'm'"),
        (("run", *APP, "broken", "a", "kind=other"), "kind: 'other' is not one of value, key"),
        (("run", "--app", "no.such.module", "count", "1"), "no module named"),
        (("run", "--app", "tests.cli.sample_app:nothing", "count", "1"), "is not a Jobs object"),
        (("run", *APP, "count", "--n", "1"), "Pass job parameters as n=..."),
        (("submit", *APP, "count", "-5"), "Pass job parameters after --"),
        (
            ("worker", "-q", "a,b", "tests.cli.sample_app:jobs"),
            "--queue takes one queue, not 'a,b'; repeat it: -q a -q b",
        ),
        (("worker", "./myapp.py:jobs"), "is not a module name; use MODULE:APP"),
        (("run", "--app", "", "count", "1"), "'' is not a module name"),
        (("types", "limit", "count", "\u00b2"), "limit must be a whole number of at least 1"),
        (("search", " "), "QUERY is empty"),
        (("neighbours", ""), "NAME is empty"),
        (("lss",), "did you mean 'ls'"),
        (("rum", "count"), "did you mean 'run'"),
        (("run", "ingestion", ".", "chunk_tokens=-4"), "chunk_tokens: -4 must be at least 16"),
        (("run", "ingestion", "nothere"), "/nothere does not exist; give files, folders or globs"),
        (("submit", *APP, "count", "5", "--priority", "high"), "'high' must be a whole number from -100 to 100"),
        (
            ("submit", *APP, "count", "5", "--budget", "usd"),
            "--budget must be NAME=AMOUNT, for example usd=5, not 'usd'",
        ),
        (("submit", *APP, "count", "5", "--budget", "usd=much"), "not 'usd=much'"),
        (("submit", *APP, "count", "5", "--budget", "usd=-1"), "budget: usd: -1 must be a number from 0 to 1e+12"),
        (("serve", "--port", "abc"), "'abc' must be a whole number from 0 to 65535"),
        (("ls", "-n", "0"), "'0' must be a whole number from 1"),
        (("serve", "--host", "999.1.1.1", "--auth", "none"), "host: '999.1.1.1' is not an address or a host name"),
        (("draw", "x.docx"), "FILE.svg: 'x.docx' must end in .svg"),
        (("ls", "status:foo"), "unknown status 'foo'"),
        (("ls", "--url", "nowhere"), "unsupported URL scheme"),
        (("ls", "--url", "memory://"), "sqlite:///jobs.db"),
    ],
)
def test_usage_errors_are_one_line_with_remedy(milepost: CommandRunner, words: tuple[str, ...], said: str) -> None:
    assert said in milepost.error_line(*words, code=2)


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_unstarted_job_has_no_resume_hint(where: StoreFixture) -> None:
    for words in (("ingestion", ".", "model=nonsense"), ("clustering",)):
        out = where.call("run", *words, code=1)
        assert "milepost show" in out
        assert "the same command" not in out


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://127.0.0.1:1", "is it running? Select another store with --url or MILEPOST_URL"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1: cannot reach the server"),
        (
            "sqlite:////proc/jobs.db",
            "; select another store with --url or MILEPOST_URL",
        ),
    ],
)
def test_unreachable_store_is_reported(milepost: CommandRunner, url: str, said: str) -> None:
    assert said in milepost.error_line("ls", "--url", url, code=1)


def test_wrong_password_is_not_reported_as_outage(
    milepost: CommandRunner, start_redis: Callable[..., RedisServer]
) -> None:
    redis = start_redis(password="secret")
    error_line = milepost.error_line("ls", "--url", redis.url_for(None, "wrong"), code=1)
    assert "refused the user or password of the URL" in error_line
    assert "running" not in error_line
    assert "wrong@" not in error_line
    milepost.call("ls", "--url", redis.url)


@pytest.mark.parametrize("where", ["sqlite"], indirect=True)
def test_wrong_api_key_error_names_remedy(where: StoreFixture) -> None:
    reader = where.call("keys", "create", "reader", "--scope", "jobs:read").strip()
    with where.served(auth.api_keys()):
        for key, command, said in (
            ("", "ls", "An API key is required"),
            ("wrong", "ls", "not valid"),
            (reader, "doctor", "admin"),
        ):
            where.environment["MILEPOST_KEY"] = key
            error_line = where.error_line(command, code=1)
            assert said in error_line
            assert (
                "set MILEPOST_KEY to an API key, created next to the store with: milepost keys create NAME"
                in error_line
            )
        where.call("ls")


@pytest.mark.parametrize("where", ["server"], indirect=True)
def test_run_on_server_submits_watches_and_asks(working: StoreFixture) -> None:
    terminal = working.on_terminal("run", "count", "100000")
    terminal.wait_for("numbers")
    terminal.press("\x03")
    terminal.wait_for("c: cancel the job")
    terminal.press("d\r")
    assert terminal.finish() == 130
    [job] = working.rows("ls", "status:running")
    again = working.on_terminal("run", "count", "100000")
    again.wait_for("numbers")
    assert [now["job_id"] for now in working.rows("ls", "status:running")] == [job["job_id"]]
    again.press("\x03")
    again.wait_for("c: cancel the job")
    again.press("c\r")
    assert again.finish() == 3
    assert working.rows("show", job["job_id"])[0]["receipt"]["confirmed"] is True
