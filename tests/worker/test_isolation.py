"""Handlers in child processes: ends, the crash dossier, the steps of a stop, and that no child outlives its worker."""

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
from milepost.core.encoding import from_json, to_json
from milepost.core.job import Job
from milepost.worker.isolated import RemoteRun
from tests.waiting import until
from tests.worker import application
from tests.worker.application import lines
from tests.worker.conftest import MakeJobs, Workers
from tests.worker.telling import ended


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the handlers write to."""
    path = tmp_path / "handlers.log"
    path.touch()
    monkeypatch.setenv("WORKER_LOG", str(path))
    return path


@pytest.fixture
def jobs(make_jobs: MakeJobs, log: Path) -> Jobs:
    """An application with the isolated handlers."""
    jobs = make_jobs(grace=2.0)
    for handler in (application.isolated, application.isolated_async, application.isolated_silent):
        jobs.handlers.add(handler)
    return jobs


def noted(log: Path, word: str) -> str:
    """Wait for a line that begins with a word; its last word."""
    found = until(lambda: [line for line in lines(log) if line.startswith(word)])
    return str(found[-1].split()[-1])


def alive(pid: int) -> bool:
    """Whether a process lives (and is no zombie)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_handler_runs_in_another_process_which_is_used_again(jobs: Jobs) -> None:
    with jobs.running(concurrency=1):
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
def test_a_worker_closes_what_connected_it_with_its_children(jobs: Jobs, log: Path, what: str) -> None:
    this = psutil.Process()
    gc.collect()
    gc.disable()  # which would close what was forgotten
    try:
        before = len(this.net_connections("unix"))
        with jobs.running():
            jobs.submit(application.isolated, what)
            noted(log, f"isolated {what}")
        assert len(this.net_connections("unix")) == before
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("what", "kind", "error"),
    [
        ("raise", "error", "this *** is wrong"),
        ("sys.exit", "error", "3"),
        ("unserialisable", "not_serialisable", "result: object has no plain form"),
    ],
)
def test_an_error_is_told_by_the_child(jobs: Jobs, what: str, kind: str, error: str) -> None:
    with jobs.running():
        job = ended(jobs, jobs.submit(application.isolated.options(max_attempts=1), what, secret="hush-hush"))
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.crashes) == ("failed", kind, 0)
    assert error in (job.error or "")
    assert job.failure.pid != os.getpid()
    assert "hush" not in job.to_json().decode()


@pytest.mark.parametrize(
    ("what", "number", "code"), [("segfault", "SIGSEGV", None), ("exit", None, 3), ("memory", "SIGKILL", None)]
)
def test_a_death_is_charged_three_times_and_leaves_a_dossier(jobs: Jobs, what: str, number: str | None, code: int | None) -> None:  # fmt: skip
    with jobs.running():
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


@pytest.mark.parametrize(
    ("what", "how"), [("loop", "cooperative"), ("sleep", "terminated"), ("deaf", "killed"), ("tidy", "cooperative")]
)
def test_the_steps_of_a_stop(jobs: Jobs, log: Path, what: str, how: str) -> None:
    with jobs.running():
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


def test_a_task_in_a_child_is_cancelled_at_its_await(jobs: Jobs, log: Path) -> None:
    with jobs.running():
        job = jobs.submit(application.isolated_async)
        noted(log, "isolated-async")
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.confirmed) == ("task cancelled", True)


def test_what_a_child_has_started_ends_with_it(jobs: Jobs, log: Path) -> None:
    with jobs.running():
        job = jobs.submit(application.isolated, "family")
        grandchild = int(noted(log, "grandchild"))
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
    assert found.receipt is not None
    assert found.receipt.confirmed
    until(lambda: not alive(grandchild))


def test_a_time_limit_stops_a_child_and_fails_its_job(jobs: Jobs) -> None:
    with jobs.running():
        job = ended(jobs, jobs.submit(application.isolated.options(timeout=0.5, max_attempts=1), "sleep"))
    assert job.failure is not None
    assert (job.status, job.failure.kind, job.error) == ("failed", "timeout", "the time limit of 0.5 s has passed")


def test_a_sigterm_that_is_not_of_the_worker_is_a_crash(jobs: Jobs, log: Path) -> None:
    with jobs.running():
        job = jobs.submit(application.isolated.options(on_lost="fail"), "sleep")
        os.kill(int(noted(log, "isolated sleep")), signal.SIGTERM)
        found = ended(jobs, job)
    assert found.failure is not None
    assert (found.status, found.failure.kind, found.failure.exit_signal) == ("failed", "killed", "SIGTERM")


def test_a_drained_worker_gives_back_what_its_children_ran_at_no_cost(jobs: Jobs, log: Path) -> None:
    with jobs.running():
        job = jobs.submit(application.isolated, "tidy")
        pid = int(noted(log, "isolated tidy"))
        noted(log, "tidy is looping")
    found = jobs.get_job(job.job_id)
    assert found is not None
    assert (found.status, found.attempt, found.crashes) == ("pending", 0, 0)
    assert lines(log)[-1] == "tidied up after JobReleased"
    assert not alive(pid)


def test_a_crash_tells_nothing_of_the_job_that_the_process_ran_before(jobs: Jobs) -> None:
    with jobs.running(concurrency=1):
        before = ended(jobs, jobs.submit(application.isolated, "return"))
        job = ended(jobs, jobs.submit(application.isolated_silent.options(on_lost="fail")))
    assert before.status == "completed"
    assert job.failure is not None
    assert (job.failure.kind, job.failure.last_stage, job.failure.last_log) == ("killed", None, ())


def test_a_checkpoint_of_a_thread_that_an_earlier_job_has_left_behind_is_not_taken_for_the_next_one_s(
    jobs: Jobs, log: Path
) -> None:
    with jobs.running(concurrency=1):
        assert ended(jobs, jobs.submit(application.isolated, "leaves")).status == "completed"
        job = ended(jobs, jobs.submit(application.isolated, "meets"))
    assert (job.status, job.attempt) == ("completed", 2)
    assert [line for line in lines(log) if not line.startswith("isolated")] == [
        "meets None",
        "late lost",
        "meets {'what': 'meets'}",
    ]


def test_a_retry_in_a_child_may_say_its_delay_in_any_way(jobs: Jobs) -> None:
    with jobs.running():
        job = ended(jobs, jobs.submit(application.isolated, "again"))
    assert (job.status, job.attempt, job.crashes) == ("completed", 2, 0)


def test_code_that_has_closed_its_connection_is_stopped_all_the_same(jobs: Jobs, log: Path) -> None:
    with jobs.running():
        job = jobs.submit(application.isolated, "closes")
        noted(log, "has closed")
        jobs.cancel_job(job.job_id)
        found = ended(jobs, job)
    assert found.receipt is not None
    assert (found.receipt.how, found.receipt.confirmed) == ("terminated", True)


def test_a_path_that_is_no_text_keeps_no_child_from_its_job(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*sys.path, Path("somewhere")])
    with jobs.running():
        assert ended(jobs, jobs.submit(application.isolated, "return")).status == "completed"


def test_log_lines_that_wait_for_a_store_are_bounded() -> None:
    run = RemoteRun(Job.stored("one", {"type": "test", "attempt": "1"}), "1:token", ())
    line = {"at": "2026-11-25T10:00:00+00:00", "level": "info", "text": "a line"}
    for _ in range(60):
        run.hear({"is": "report", "lines": to_json({"lines": [line] * 100}, "lines")})
    taken = from_json(run.take_lines() or "")["lines"]
    assert len(taken) == 5001
    assert taken[-1]["text"] == "1000 log lines were dropped"
    assert run.take_lines() is None


def test_no_child_outlives_a_killed_worker(workers: Workers) -> None:
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
