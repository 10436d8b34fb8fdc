"""What a worker shows and logs of its own jobs."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from milepost import JobManager
from milepost.cli.commands.worker import WorkerMonitor
from milepost.core.errors import StoreUnavailableError
from milepost.settings import Settings
from tests.cli.subprocesses import CommandRunner, until

APP = """
import time

from milepost import Jobs, Run

jobs = Jobs()


@jobs.job(max_attempts=3)
def endless(run: Run) -> None:
    while True:
        run.check()
        time.sleep(0.01)
"""


@pytest.fixture
def monitored(url: str, redis_namespace: str) -> Iterator[tuple[JobManager, WorkerMonitor]]:
    manager = JobManager(url, options=Settings(namespace=redis_namespace))
    monitor = WorkerMonitor(manager)
    monitor.start()
    yield manager, monitor
    monitor.stop()
    manager.close()


@pytest.mark.timing
def test_running_jobs_are_read_with_one_request(
    monitored: tuple[JobManager, WorkerMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each running job was read, four times a second."""
    manager, monitor = monitored
    kind, calls = type(manager.store), list[str]()

    def counted(name: str) -> Any:
        method = getattr(kind, name)

        def call(*args: Any, **options: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                calls.append(name)
            return method(*args, **options)

        return call

    with manager.track("work") as one, manager.track("other") as two, manager.track("third") as three:
        until(lambda: len(monitor.running) == 3)
        one.progress(0.5)
        until(lambda: [job.progress for job in monitor.refresh(1)] == [0.5])
        for name in ("get", "select"):
            monkeypatch.setattr(kind, name, counted(name))
        assert [job.job_id for job in monitor.refresh(20)] == [one.job_id, two.job_id, three.job_id]
        assert [job.job_id for job in monitor.refresh(2)] == [one.job_id, two.job_id]
        assert calls == ["select", "select"]
    until(lambda: monitor.refresh(20) == [])


@pytest.mark.timing
def test_running_jobs_are_shown_as_last_seen_during_outage(
    monitored: tuple[JobManager, WorkerMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the summary ended with the error, and the worker with its last frame."""
    manager, monitor = monitored
    with manager.track("work") as run:
        until(lambda: len(monitor.running) == 1)
        run.progress(0.5)
        until(lambda: [job.progress for job in monitor.refresh(20)] == [0.5])

        async def unavailable(*_: Any) -> Any:
            raise StoreUnavailableError("no answer")

        monkeypatch.setattr(type(manager.store), "select", unavailable)
        assert [job.progress for job in monitor.refresh(20)] == [0.5]


@pytest.mark.timing
def test_log_of_released_first_attempt_names_it(tmp_path: Path, sqlite_url: str) -> None:
    """It was 0: a release gives the attempt back."""
    (tmp_path / "endless_app.py").write_text(APP)
    with CommandRunner(tmp_path, MILEPOST_URL=sqlite_url) as program:
        worker = program.start("worker", "endless_app:jobs")
        until(lambda: program.rows("workers"))
        program.call("submit", "endless")
        until(lambda: program.rows("ls", "status:running"))
        worker.signal(signal.SIGTERM)
        code, out, err = worker.finish()
    assert code == 0, err
    events = [json.loads(line) for line in out.splitlines()]
    assert [(one["event"], one["attempt"]) for one in events if "event" in one] == [("running", 1), ("released", 1)]


def test_log_of_a_retry_names_the_error(tmp_path: Path, sqlite_url: str) -> None:
    """Regression: the log of a worker said that an attempt was retried, but not why."""
    (tmp_path / "failing_app.py").write_text(
        "from milepost import Jobs, Run\n\njobs = Jobs()\n\n\n@jobs.job(max_attempts=2)\n"
        "def load(run: Run) -> None:\n    raise ConnectionError(f'no model {run.attempt}')\n"
    )
    with CommandRunner(tmp_path, MILEPOST_URL=sqlite_url) as program:
        program.call("submit", "load", "--app", "failing_app:jobs")
        out = program.call("worker", "failing_app:jobs", "--max-jobs", "2")
    events = [json.loads(line) for line in out.splitlines()]
    assert [(one["event"], one.get("error")) for one in events if "event" in one] == [
        ("running", None), ("retrying", "no model 1"), ("running", None), ("failed", "no model 2"),
    ]  # fmt: skip
