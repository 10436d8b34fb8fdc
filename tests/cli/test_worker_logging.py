"""What `milepost worker` logs itself, and what it copies into the logs of its jobs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.subprocesses import CommandRunner, until

APP = """
import logging

from milepost import Jobs, Run

{configuration}
jobs = Jobs()
log = logging.getLogger("shop.orders")
library = logging.getLogger("http_library")


def talk(run: Run) -> None:
    log.debug("own debug")
    log.info("own info")
    library.info("library info")
    library.warning("library warning")
    print("printed")


@jobs.job
def here(run: Run) -> None:
    talk(run)


@jobs.job(isolation="process")
def apart(run: Run) -> None:
    talk(run)
"""
OWN = "logging.basicConfig(level='INFO', format='own format %(message)s')"


@pytest.fixture
def program(tmp_path: Path, sqlite_url: str) -> Iterator[CommandRunner]:
    with CommandRunner(tmp_path, MILEPOST_URL=sqlite_url) as made:
        yield made


def job_log(
    program: CommandRunner, *options: str, configuration: str = "", job_type: str = "here", **environment: str
) -> tuple[list[str], str]:
    """Run a job of the application with a worker, and return the job's log and the output of the worker."""
    (program.folder / "shop").mkdir(exist_ok=True)
    (program.folder / "shop" / "app.py").write_text(APP.format(configuration=configuration))
    worker = program.start("worker", "shop.app:jobs", *options, **environment)
    until(lambda: program.rows("workers"))
    job_id = program.call("submit", job_type).strip()
    program.call("watch", job_id)
    worker.signal(signal.SIGTERM)
    code, out, err = worker.finish()
    assert code == 0, err
    lines = [line["text"] for row in program.rows("logs", job_id) for line in row.get("lines", [row])]
    return lines, out + err


@pytest.mark.timing
@pytest.mark.parametrize("job_type", ["here", "apart"])
def test_worker_logs_info_of_handlers_and_warnings_of_libraries(program: CommandRunner, job_type: str) -> None:
    """Regression: each HTTP request of a library was a line in the log of the job, of 494 lines after 5 s."""
    lines, output = job_log(program, job_type=job_type)
    assert lines == ["own info", "library warning"]
    if job_type == "here":
        assert '"logger": "shop.orders", "message": "own info"' in output
        assert '"message": "library warning"' in output
        assert "library info" not in output


@pytest.mark.timing
@pytest.mark.parametrize(
    ("level", "logged"),
    [("info", ["own info", "library info", "library warning"]), ("error", [])],
)
@pytest.mark.parametrize("job_type", ["here", "apart"])
def test_log_level_holds_for_all_loggers(program: CommandRunner, level: str, logged: list[str], job_type: str) -> None:
    lines, _ = job_log(program, "--log-level", level, job_type=job_type)
    assert lines == logged


@pytest.mark.timing
@pytest.mark.parametrize(("capture", "logged"), [("none", []), ("stdout", ["printed"])])
def test_capture_option_precedes_environment(program: CommandRunner, capture: str, logged: list[str]) -> None:
    lines, output = job_log(program, "--capture", capture, MILEPOST_CAPTURE="logging")
    assert lines == logged
    assert "own info" in output


@pytest.mark.timing
def test_application_keeps_its_logging_configuration(program: CommandRunner) -> None:
    lines, output = job_log(program, configuration=OWN)
    assert lines == ["own info", "library info", "library warning"]
    assert "own format own info" in output
    lines, output = job_log(program, "--log-level", "warning", configuration=OWN)
    assert lines == ["library warning"]
    assert "own format" not in output


@pytest.mark.timing
def test_worker_on_terminal_copies_the_same_lines(program: CommandRunner) -> None:
    job_log(program)
    terminal = program.on_terminal("worker", "shop.app:jobs")
    terminal.wait_for("0/10 running")
    job_id = program.call("submit", "here").strip()
    program.call("watch", job_id)
    assert "own info" in program.call("logs", job_id)
    assert "library info" not in program.call("logs", job_id)
    assert "WARNING http_library: library warning" in terminal.wait_for("1 completed")
    assert "own info" not in terminal.text
    terminal.press("\x03")
    assert terminal.finish() == 0


def test_run_copies_info_of_handler(program: CommandRunner) -> None:
    (program.folder / "shop").mkdir()
    (program.folder / "shop" / "app.py").write_text(APP.format(configuration=""))
    done = program.run("run", "here", "--app", "shop.app:jobs")
    assert "WARNING http_library: library warning" in done.stderr
    assert "own info" not in done.stderr
    text = program.call("logs", "@last")
    assert "own info" in text
    assert "library info" not in text


def test_capture_option_names_its_values(program: CommandRunner) -> None:
    assert "'logs' is not valid; choose from logging, tqdm, threads, stdout, none" in program.error_line(
        "worker", "--capture", "logs", code=2
    )
