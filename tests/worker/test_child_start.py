"""Child processes that cannot be started, or are stopped or lose their worker while they import the code of their job."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from milepost import LeaseLost
from milepost.worker import process_execution, process_pool
from milepost.worker.child_protocol import ParentConnection, encode_frame, encode_stop
from milepost.worker.process_pool import ChildProcess
from tests.chaos.calibration import slowness
from tests.waiting import PATIENCE, until
from tests.worker import application
from tests.worker.application import lines
from tests.worker.conftest import MakeJobs
from tests.worker.job_assertions import ended

pytestmark = pytest.mark.timing

MODULE = """
import os
import time

from milepost import Jobs, Run
from tests.worker.application import note

jobs = Jobs()


@jobs.job("imported", isolation="process")
def imported(run: Run) -> None:
    note("begins")
    while True:
        run.check()
        time.sleep(0.01)


if os.environ["IMPORTED_BY"] != str(os.getpid()):
    note("imports")
    while not os.path.exists(os.environ["WORKER_LOG"] + ".go"):
        time.sleep(0.01)
"""
WITHOUT_DEATH_SIGNAL = "from milepost.worker import child_main; child_main._die_with = print; child_main.main()"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file to which a module writes that a child imports until the file ``.go`` beside it exists."""
    path = tmp_path / "handlers.log"
    path.touch()
    (tmp_path / "slow_import.py").write_text(MODULE)
    monkeypatch.setenv("WORKER_LOG", str(path))
    monkeypatch.setenv("IMPORTED_BY", str(os.getpid()))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_import", raising=False)
    return path


def test_stop_during_import_reaches_code(make_jobs: MakeJobs, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: the child ignored a stop of a run that had not begun, and SIGTERM ended its code without a notice."""
    import slow_import  # type: ignore[import-not-found]

    send = ChildProcess.send

    def send_and_go(self: ChildProcess, message: dict[str, Any]) -> None:
        send(self, message)
        if message["do"] == "stop":
            Path(f"{log}.go").touch()

    monkeypatch.setattr(ChildProcess, "send", send_and_go)
    monkeypatch.setattr(process_execution, "SIGTERM_DELAY", PATIENCE)
    jobs = make_jobs(grace=PATIENCE)
    jobs.handlers.add(slow_import.imported)
    with jobs.run_workers():
        job = jobs.submit("imported")
        until(lambda: "imports" in lines(log))
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.status, found.receipt.confirmed) == ("cancelled", True)
    assert found.receipt.how in ("never_started", "cooperative")  # the import may end before the child reads the stop


def test_child_without_thread_is_not_used(make_jobs: MakeJobs, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: if the system refused the thread that waits for a child, its job ran for ever without a process."""
    refused: list[str] = []

    def thread(**options: Any) -> threading.Thread:
        if not refused:
            refused.append(options["name"])
            raise RuntimeError("can't start new thread")
        return threading.Thread(**options)

    monkeypatch.setattr(process_pool, "threading", SimpleNamespace(Thread=thread))
    jobs = make_jobs()
    jobs.handlers.add(application.isolated)
    with jobs.run_workers():
        job = ended(jobs, jobs.submit(application.isolated, "return"))
    assert (job.status, job.attempt, job.crashes) == ("completed", 1, 0)
    assert not psutil.pid_exists(int(refused[0].rpartition("-")[2]))


@contextmanager
def child_process(end_of_lease: float) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """Start a child process of this one without a death signal, and give it a job. Yields it, and the socket to it."""
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile() as trace, tempfile.TemporaryFile() as last_message:
        keep = (theirs.fileno(), trace.fileno(), last_message.fileno())
        command = [sys.executable, "-P", "-c", WITHOUT_DEATH_SIGNAL, *map(str, keep), str(os.getpid())]
        child = subprocess.Popen(command, pass_fds=keep, process_group=0)
        theirs.close()
        record = {"type": "imported", "status": "running", "created_at": "1"}
        message = {"do": "run", "handler": "slow_import:imported", "job_id": "one", "token": "1:one", "record": record}
        message |= {"capture": [], "redact": None, "log_levels": {}, "sys_path": sys.path, "argv": [], "setup": None}
        try:
            ours.sendall(encode_frame({**message, "lease_end": end_of_lease}))
            yield child, ours
        finally:
            child.kill()
            child.wait()


def test_child_without_death_signal_ends_with_worker_during_import(log: Path) -> None:
    """Regression: it ran the code after its worker was gone. On Linux the kernel kills it; elsewhere its socket tells it."""
    with child_process(time.monotonic() + PATIENCE) as (child, connection):
        until(lambda: "imports" in lines(log))
        connection.close()
        assert child.wait(PATIENCE) == -signal.SIGKILL
    assert lines(log) == ["imports"]


def test_child_that_stood_still_with_its_worker_does_not_begin_too_late(log: Path) -> None:
    """Regression: if it went on before its worker, it began a job whose lease had ended, beside another run of it."""
    Path(f"{log}.go").touch()
    with child_process(time.monotonic() - 1.0) as (_, connection):
        connection.settimeout(PATIENCE)
        worker = ParentConnection(connection)
        messages = iter(worker.receive, None)
        request = next(message for message in messages if message["is"] == "lease")
        worker.send({"do": "answer", "n": request["n"], "stop": encode_stop(LeaseLost("another run has it"))})
        end = next(message for message in messages if message["is"] == "ended")
    assert (end["end"], end["how"], end["line"]) == ("stopped", "never_started", "another run has it")
    assert lines(log) == ["imports"]


def test_import_that_takes_longer_than_a_lease(make_jobs: MakeJobs, log: Path) -> None:
    """The worker renews the lease meanwhile, so the code begins."""
    import slow_import

    lease = slowness()  # seconds
    jobs = make_jobs(lease=lease)
    jobs.handlers.add(slow_import.imported)
    with jobs.run_workers():
        job = jobs.submit("imported")
        until(lambda: "imports" in lines(log))
        time.sleep(1.1 * lease)
        Path(f"{log}.go").touch()
        until(lambda: "begins" in lines(log))
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
    assert (found.status, found.attempt, found.crashes) == ("cancelled", 1, 0)
    assert lines(log) == ["imports", "begins"]
