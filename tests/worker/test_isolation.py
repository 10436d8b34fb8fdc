"""Handlers in child processes: outcomes, crash reports, the steps of a stop, and no child that outlives its worker."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from milepost import Jobs
from milepost.core.job import Job
from milepost.core.serialization import from_json, to_json
from milepost.worker import process_execution
from milepost.worker.process_execution import RemoteRun
from tests.waiting import PATIENCE, until
from tests.worker import application
from tests.worker.application import lines
from tests.worker.conftest import MakeJobs, Workers
from tests.worker.job_assertions import ended

pytestmark = pytest.mark.timing


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that the handlers write to."""
    path = tmp_path / "handlers.log"
    path.touch()
    monkeypatch.setenv("WORKER_LOG", str(path))
    return path


@pytest.fixture
def jobs(make_jobs: MakeJobs, log: Path) -> Jobs:
    """Yield an application with the isolated handlers."""
    return with_handlers(make_jobs(grace=2.0))


@pytest.fixture
def patient_jobs(make_jobs: MakeJobs, log: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """Yield one that sends SIGTERM only to code that ignores its stop, however busy the machine is."""
    monkeypatch.setattr(process_execution, "SIGTERM_DELAY", PATIENCE)
    return with_handlers(make_jobs(grace=PATIENCE))


def with_handlers(jobs: Jobs) -> Jobs:
    """Add the isolated handlers to an application."""
    for handler in (application.isolated, application.isolated_async, application.isolated_silent):
        jobs.handlers.add(handler)
    return jobs


def noted(log: Path, word: str) -> str:
    """Wait for a line that starts with a word; return its last word."""
    found = until(lambda: [line for line in lines(log) if line.startswith(word)])
    return str(found[-1].split()[-1])


def alive(pid: int) -> bool:
    """Return whether a process lives and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_handler_runs_in_reused_child_process(jobs: Jobs) -> None:
    with jobs.run_workers(concurrency=1):
        first = ended(jobs, jobs.submit(application.isolated, "return", secret="hush-hush"))
        second = ended(jobs, jobs.submit("isolated", {"what": "return"}))
    assert first.result["pid"] not in (None, os.getpid())
    assert first.result["pid"] == second.result["pid"]
    assert (first.result["secret"], first.progress, first.result["checkpoint"]) == (9, 1.0, None)
    assert not alive(first.result["pid"])
    text = str([event.data for event in jobs.events(first.job_id)])
    assert "about to return with ***" in text
    assert "hush" not in text


@pytest.mark.parametrize("what", ["return", "exit", "tidy", "sleep"])
def test_worker_closes_connections_to_children(jobs: Jobs, log: Path, what: str) -> None:
    this = psutil.Process()
    gc.collect()
    gc.disable()  # which would close what was forgotten
    try:
        before = len(this.net_connections("unix"))
        with jobs.run_workers():
            jobs.submit(application.isolated, what)
            noted(log, f"isolated {what}")
        assert len(this.net_connections("unix")) == before
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("what", "kind", "error"),
    [
        ("raise", "error", "this *** is wrong"),
        ("sys.exit", "error", "the code called sys.exit(3)"),
    ],
)
def test_child_reports_error(jobs: Jobs, what: str, kind: str, error: str) -> None:
    with jobs.run_workers():
        job = ended(jobs, jobs.submit(application.isolated.options(max_attempts=1), what, secret="hush-hush"))
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.crashes) == ("failed", kind, 0)
    assert error in (job.error or "")
    assert job.failure.pid != os.getpid()
    assert "hush" not in job.to_json().decode()


@pytest.mark.parametrize(
    ("what", "number", "code"), [("segfault", "SIGSEGV", None), ("exit", None, 3), ("memory", "SIGKILL", None)]
)
def test_child_crash_is_charged_and_leaves_crash_report(jobs: Jobs, what: str, number: str | None, code: int | None) -> None:  # fmt: skip
    with jobs.run_workers():
        job = ended(jobs, jobs.submit(application.isolated, what))
        after = ended(jobs, jobs.submit(application.isolated, "return"))
    failure = job.failure
    assert failure is not None
    assert (job.status, failure.kind, job.crashes, job.attempt) == ("failed", "crash_loop", 3, 0)
    assert (failure.exit_signal, failure.exit_code) == (number, code)
    assert (failure.last_stage, failure.last_log) == ("Working", (f"about to {what} with ",))
    assert failure.last_checkpoint_at is not None
    assert failure.peak_memory is not None
    if what == "memory":
        assert failure.peak_memory > 80 * 2**20
    if what == "segfault":
        assert "in <lambda>" in (failure.traceback or "")
    assert after.status == "completed"


def test_death_of_idle_child_is_not_charged_to_next_job(jobs: Jobs) -> None:
    """Regression: the job had a crash, and the log of the job before it, although no code of it had begun."""
    with jobs.run_workers(concurrency=1):
        first = ended(jobs, jobs.submit(application.isolated, "return"))
        child = psutil.Process(first.result["pid"])
        child.suspend()
        second = jobs.submit(application.isolated, "return")
        until(lambda: jobs.get_job(second.job_id).status == "running")
        child.kill()
        job = ended(jobs, second)
    assert (job.status, job.attempt, job.crashes) == ("completed", 1, 0)


@pytest.mark.parametrize(
    ("what", "how"), [("loop", "cooperative"), ("sleep", "terminated"), ("deaf", "killed"), ("tidy", "cooperative")]
)
def test_stop_escalates_message_sigterm_sigkill(
    make_jobs: MakeJobs, log: Path, monkeypatch: pytest.MonkeyPatch, what: str, how: str
) -> None:
    if how == "cooperative":
        monkeypatch.setattr(process_execution, "SIGTERM_DELAY", PATIENCE)
    jobs = with_handlers(make_jobs(grace=2.0 if how == "killed" else PATIENCE))
    with jobs.run_workers():
        job = jobs.submit(application.isolated, what)
        pid = int(noted(log, f"isolated {what}"))
        if what == "tidy":
            noted(log, "tidy is looping")
        asked = time.monotonic()
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
        took = time.monotonic() - asked
        assert found.receipt is not None
        assert (found.receipt.how, found.receipt.confirmed) == (how, True)
        if how != "cooperative":
            assert not alive(pid)
        assert took < 2.0 + 20  # grace, with a guard
        if what == "tidy":
            assert lines(log)[-1] == "tidied up after JobCancelled"
        assert ended(jobs, jobs.submit(application.isolated, "return")).status == "completed"


def test_task_in_child_is_cancelled_at_await(patient_jobs: Jobs, log: Path) -> None:
    jobs = patient_jobs
    with jobs.run_workers():
        job = jobs.submit(application.isolated_async)
        noted(log, "isolated-async")
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.confirmed) == ("task_cancelled", True)


def test_processes_started_by_child_are_killed(jobs: Jobs, log: Path) -> None:
    with jobs.run_workers():
        job = jobs.submit(application.isolated, "family")
        grandchild = int(noted(log, "grandchild"))
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
    assert found.receipt is not None
    assert found.receipt.confirmed
    until(lambda: not alive(grandchild))


def test_timeout_stops_child_and_fails_job(jobs: Jobs) -> None:
    with jobs.run_workers():
        job = ended(jobs, jobs.submit(application.isolated.options(timeout=0.5, max_attempts=1), "sleep"))
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.error) == ("failed", "timeout", "timeout of 0.5 s exceeded")


def test_foreign_signals_leave_code_to_worker(jobs: Jobs, log: Path) -> None:
    """Regression: a supervisor that signalled all processes ended the child, and its job counted as crashed."""
    with jobs.run_workers():
        job = jobs.submit(application.isolated.options(on_lost="fail"), "signalled")
        noted(log, "continues")
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.status, found.receipt.how) == ("cancelled", "terminated")


def test_foreign_sigterm_after_stop_lets_code_end_by_itself(patient_jobs: Jobs, log: Path) -> None:
    jobs = patient_jobs
    with jobs.run_workers():
        job = jobs.submit(application.isolated, "signalled after stop")
        noted(log, "isolated signalled after stop")
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, lines(log)[-1]) == ("cooperative", "continues")


def test_sigterm_handler_of_code_is_called(jobs: Jobs, log: Path) -> None:
    with jobs.run_workers():
        job = jobs.submit(application.isolated, "handles")
        noted(log, "handles SIGTERM")
        jobs.cancel_job(job.job_id)
        assert ended(jobs, job).status == "cancelled"
    assert lines(log)[-1] == "handled SIGTERM"


def test_sigterm_ends_process_that_code_has_forked(jobs: Jobs) -> None:
    with jobs.run_workers():
        assert ended(jobs, jobs.submit(application.isolated, "forks")).result == -signal.SIGTERM


def test_drain_returns_jobs_of_children_uncharged(patient_jobs: Jobs, log: Path) -> None:
    jobs = patient_jobs
    with jobs.run_workers():
        job = jobs.submit(application.isolated, "tidy")
        pid = int(noted(log, "isolated tidy"))
        noted(log, "tidy is looping")
    found = jobs.get_job(job.job_id)
    assert found is not None
    assert (found.status, found.attempt, found.crashes) == ("pending", 0, 0)
    assert lines(log)[-1] == "tidied up after JobReleased"
    assert not alive(pid)


def test_crash_report_names_nothing_of_previous_job(jobs: Jobs) -> None:
    with jobs.run_workers(concurrency=1):
        before = ended(jobs, jobs.submit(application.isolated, "return"))
        job = ended(jobs, jobs.submit(application.isolated_silent.options(on_lost="fail")))
    assert before.status == "completed"
    assert job.failure is not None
    assert (job.failure.kind, job.failure.last_stage, job.failure.last_log) == ("killed", None, ())


def test_checkpoint_of_leftover_thread_is_rejected(jobs: Jobs, log: Path) -> None:
    with jobs.run_workers(concurrency=1):
        assert ended(jobs, jobs.submit(application.isolated, "leaves")).status == "completed"
        job = ended(jobs, jobs.submit(application.isolated, "meets"))
    assert (job.status, job.attempt) == ("completed", 2)
    assert [line for line in lines(log) if not line.startswith("isolated")] == [
        "meets None",
        "late lost",
        "meets {'what': 'meets'}",
    ]


def test_retry_delay_formats_in_child(jobs: Jobs) -> None:
    with jobs.run_workers():
        job = ended(jobs, jobs.submit(application.isolated, "again"))
    assert (job.status, job.attempt, job.crashes) == ("completed", 2, 0)


def test_code_that_closed_its_socket_is_stopped(make_jobs: MakeJobs, log: Path) -> None:
    jobs = with_handlers(make_jobs(grace=PATIENCE))
    with jobs.run_workers():
        job = jobs.submit(application.isolated, "closes")
        noted(log, "has closed")
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.confirmed) == ("terminated", True)


def test_code_that_breaks_protocol_fails_its_job(jobs: Jobs, log: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Regression: the exception was lost, and the job ran for ever without a word."""
    with jobs.run_workers():
        job = ended(jobs, jobs.submit(application.isolated.options(max_attempts=1), "writes to socket"))
        pid = int(noted(log, "isolated writes to socket"))
        assert not alive(pid)
    assert job.failure is not None
    assert (job.status, job.failure.kind) == ("failed", "error")
    assert "Expecting value" in (job.error or "")
    assert f"job {job.job_id} (isolated): unexpected error, job ended" in caplog.text


def test_sys_path_entry_that_is_no_text_is_ignored(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*sys.path, Path("somewhere")])
    with jobs.run_workers():
        assert ended(jobs, jobs.submit(application.isolated, "return")).status == "completed"


def test_child_sees_arguments_of_its_worker(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: modules that read them at their import found numbers of file descriptors."""
    monkeypatch.setattr("sys.argv", ["app.py", "--config", "prod.yaml"])
    with jobs.run_workers():
        assert ended(jobs, jobs.submit(application.isolated, "argv")).result == ["app.py", "--config", "prod.yaml"]


def test_child_does_not_prefer_current_directory(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: a json.py in the worker's current directory was imported in its children instead of the real one."""
    (tmp_path / "json.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    with jobs.run_workers():
        assert ended(jobs, jobs.submit(application.isolated, "return")).status == "completed"


def test_waiting_log_lines_are_bounded() -> None:
    run = RemoteRun(Job.stored("one", {"type": "test", "attempt": "1"}), "1:token")
    line = {"at": "2026-11-25T10:00:00+00:00", "level": "info", "text": "a line"}
    for _ in range(60):
        run.apply_message({"is": "report", "lines": to_json({"lines": [line] * 100}, "lines")})
    taken = from_json(run._take_lines() or "")["lines"]
    assert len(taken) == 5001
    assert taken[-1]["text"] == "1000 log lines dropped"
    assert run._take_lines() is None


def test_usage_that_was_written_with_a_step_is_reported() -> None:
    """Regression: until the next report of the child, the heartbeat could write the usage from before the step again."""
    run = RemoteRun(Job.stored("one", {"type": "test", "attempt": "1"}), "1:token")
    run.apply_message({"is": "report", "report": {"progress": "0.5", "usage": '{"usd":1}'}})
    run.apply_message({"is": "step", "steps": "{}", "usage": '{"usd":2}'})
    assert run._report() == {"progress": "0.5", "usage": '{"usd":2}'}


def test_children_die_with_killed_worker(workers: Workers) -> None:
    worker = workers.start()
    jobs = workers.jobs()
    ids = [jobs.enqueue("isolated", {"what": what}).job_id for what in ("sleep", "deaf", "loop")]
    pids = [int(noted(workers.log, f"isolated {what}")) for what in ("sleep", "deaf", "loop")]
    assert all(map(alive, pids))
    worker.kill()
    worker.wait()
    killed = time.monotonic()
    until(lambda: not any(map(alive, pids)))
    assert time.monotonic() - killed < 20  # the aim is 1 s, with a guard
    for job_id in ids:
        jobs.delete_job(job_id)
    jobs.close()
