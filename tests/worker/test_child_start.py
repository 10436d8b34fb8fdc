"""Child processes that cannot be started, or are stopped or lose their worker while they import the code of their job."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from milepost.worker import process_execution, process_pool
from milepost.worker.child_protocol import encode_frame
from milepost.worker.process_pool import ChildProcess
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


def test_child_without_death_signal_ends_with_worker_during_import(log: Path) -> None:
    """Regression: it ran the code after its worker was gone. On Linux the kernel kills it; elsewhere its socket tells it."""
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile() as trace, tempfile.TemporaryFile() as last_message:
        keep = (theirs.fileno(), trace.fileno(), last_message.fileno())
        command = [sys.executable, "-P", "-c", WITHOUT_DEATH_SIGNAL, *map(str, keep), str(os.getpid())]
        child = subprocess.Popen(command, pass_fds=keep, process_group=0)
        theirs.close()
        message = {"do": "run", "handler": "slow_import:imported", "job_id": "one", "token": "1:one", "record": {}}
        message |= {"capture": [], "redact": None, "log_levels": {}, "sys_path": sys.path, "argv": [], "setup": None}
        try:
            ours.sendall(encode_frame(message))
            until(lambda: "imports" in lines(log))
            ours.close()
            assert child.wait(PATIENCE) == -signal.SIGKILL
        finally:
            child.kill()
            child.wait()
    assert lines(log) == ["imports"]
