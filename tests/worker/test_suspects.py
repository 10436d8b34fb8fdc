"""Crash suspects: jobs that were lost together run alone next, so that a crash is charged to the job that caused it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from milepost import Job, Jobs, Run, Settings
from milepost.core.transitions import plan_create, plan_lease_expired, plan_report, plan_start
from milepost.manager.validation import submit_fields
from milepost.run.sweeper import MAX_UNCHARGED_CRASHES, Sweeper
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import Claim, Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.fakes import FrozenClock
from milepost.worker.handlers import Handlers
from tests.chaos.calibration import slowness
from tests.waiting import PATIENCE, until
from tests.worker.conftest import MakeJobs
from tests.worker.job_assertions import Signals, ended


def make_suspect(jobs: Jobs, job: Job) -> None:
    """Lose a job as a sweep does when a process lost several runs at once."""
    start = plan_start(new_operation_id(), nonce=new_nonce(), lease=0, worker="gone:1:1:1")
    claim = Claim("gone:1:1:1", {job.job_type: None}, (start,), new_operation_id(), job.job_id)
    assert run_sync(jobs.store.apply([], claim)).claimed
    lost = plan_lease_expired(new_operation_id(), error="lost", failure="{}", crash_loop="{}", crashes_left=None)
    until(lambda: run_sync(jobs.store.apply([Write(job.job_id, lost)])).outcomes[0].accepted)


def unnamed(run: Run) -> str:
    return "own"


def answer(run: Run) -> str:
    return "own"


first_answer = answer


@Handlers().job("other")
def answer(run: Run) -> str:  # type: ignore[no-redef] # a second handler with this name
    return "other"


@pytest.mark.parametrize("function", [unnamed, first_answer])
def test_suspect_without_name_of_its_own_runs_in_worker(jobs: Jobs, function: Callable[[Run], str]) -> None:
    """Regressions: its child process failed the job, or ran the code of another job type."""
    jobs.job("own")(function)
    lost = jobs.enqueue("own")
    make_suspect(jobs, lost)
    with jobs.run_workers():
        done = ended(jobs, lost)
    assert (done.status, done.result, done.error) == ("completed", "own", None)


def test_suspect_starts_when_last_other_job_ends(jobs: Jobs) -> None:
    """Regression: a suspect that was claimed with others was never started, and its worker claimed nothing more."""

    @jobs.job("good")
    async def good(run: Run) -> None: ...

    @jobs.job("suspect")
    async def suspect(run: Run) -> str:
        return "begun"

    first = [jobs.enqueue("good") for _ in range(2)]
    lost = jobs.enqueue("suspect")
    make_suspect(jobs, lost)
    later = [jobs.enqueue("good") for _ in range(3)]
    with jobs.run_workers(concurrency=4):
        for job in [*first, lost, *later]:
            assert jobs.wait(job.job_id, PATIENCE).status == "completed"


def test_suspect_runs_without_other_leases(jobs: Jobs) -> None:
    """Regression: jobs claimed with a suspect shared the blame for its crash, so a poison job was never charged."""
    beside: list[str] = []

    @jobs.job("good")
    def good(run: Run) -> None: ...

    @jobs.job("suspect")
    def suspect(run: Run) -> None:
        jobs.submit_many("good", [{}] * 8)
        for _ in range(20):
            beside.extend(job.job_type for job in jobs.list_jobs(status="running") if job.job_id != run.job_id)

    lost = jobs.enqueue("suspect")
    make_suspect(jobs, lost)
    batch = [jobs.enqueue("good") for _ in range(5)]
    with jobs.run_workers(concurrency=4):
        assert ended(jobs, lost).status == "completed"
        for job in batch:
            assert ended(jobs, job).status == "completed"
    assert beside == []


def test_job_given_back_beside_suspect_costs_no_start_of_its_rate(jobs: Jobs) -> None:
    """A job that was claimed with a suspect, and given back, waited for the next start of its rate: here, an hour."""

    @jobs.job("good")
    async def good(run: Run) -> None: ...

    @jobs.job("suspect")
    async def suspect(run: Run) -> None: ...

    jobs.limit("good", rate="1/h")
    lost = jobs.enqueue("suspect")
    make_suspect(jobs, lost)
    beside = jobs.enqueue("good")
    with jobs.run_workers(concurrency=4):
        for job in (lost, beside):
            assert ended(jobs, job).status == "completed"
    found = jobs.get_job(beside.job_id)
    assert found is not None
    assert len(found.attempts) == 2, "it was given back once"


@pytest.mark.parametrize("is_async", [False, True])
def test_waiting_suspect_is_dropped_when_cancelled(jobs: Jobs, signals: Signals, is_async: bool) -> None:
    """Regression: a cancelled suspect kept its draining lease, its key and its slot while the other jobs ran."""

    @jobs.job("blocks")
    def blocks(run: Run) -> None:
        signals.began.set()
        signals.let_go.wait(PATIENCE)

    def suspect(run: Run) -> None:
        signals.calls += 1

    async def asuspect(run: Run) -> None:
        signals.calls += 1

    jobs.job("suspect")(asuspect if is_async else suspect)
    blocker = jobs.enqueue("blocks")
    lost = jobs.enqueue("suspect", unique_key="key")
    make_suspect(jobs, lost)
    with jobs.run_workers(concurrency=4):
        assert signals.began.wait(PATIENCE)
        until(lambda: (found := jobs.get_job(lost.job_id)) and found.status == "running")
        successor = jobs.submit("suspect", unique_key="key", on_duplicate="supersede")
        until(lambda: (found := jobs.get_job(lost.job_id)) and found.receipt and found.receipt.confirmed)
        cancelled = jobs.get_job(lost.job_id)
        assert cancelled is not None
        assert cancelled.receipt is not None
        assert (cancelled.status, cancelled.receipt.how) == ("cancelled", "never_started")
        assert jobs.wait(successor.job_id, PATIENCE).status == "completed"
        assert jobs.get_job(blocker.job_id).status == "running"  # type: ignore[union-attr]
        signals.let_go.set()
    assert signals.calls == 1


def test_suspect_does_not_wait_for_unresponsive_code(jobs: Jobs, signals: Signals) -> None:
    """Code that ignores its cancel may run without end; a suspect that waited for it would never start."""

    @jobs.job("deaf")
    def deaf(run: Run) -> None:
        signals.began.set()
        signals.let_go.wait(PATIENCE)

    @jobs.job("suspect")
    async def suspect(run: Run) -> str:
        return "begun"

    endless = jobs.enqueue("deaf")
    lost = jobs.enqueue("suspect")
    make_suspect(jobs, lost)
    with jobs.run_workers(concurrency=2):
        assert signals.began.wait(PATIENCE)
        jobs.cancel_job(endless.job_id)
        assert jobs.wait(lost.job_id, PATIENCE).status == "completed"
        signals.let_go.set()


def test_drain_returns_waiting_suspect(make_jobs: MakeJobs, signals: Signals) -> None:
    """A suspect that waits to run alone is released uncharged when its worker drains."""
    jobs = make_jobs(grace=PATIENCE)

    @jobs.job("blocks")
    def blocks(run: Run) -> None:
        signals.began.set()
        while not signals.let_go.wait(0.01):
            run.check()

    @jobs.job("suspect")
    async def suspect(run: Run) -> None: ...

    jobs.enqueue("blocks")
    lost = jobs.enqueue("suspect")
    make_suspect(jobs, lost)
    with jobs.run_workers(concurrency=4):
        assert signals.began.wait(PATIENCE)
        until(lambda: (found := jobs.get_job(lost.job_id)) and found.status == "running")
    left = jobs.get_job(lost.job_id)
    assert left is not None
    assert (left.status, left.attempt, left.crashes) == ("pending", 0, 0)
    assert run_sync(jobs.store.draining_leases()) == []


SHORT_LEASE = Settings(lease=1.0, sweep=0.2)


def swept_store() -> tuple[FrozenClock, MemoryStore, Sweeper]:
    """Return a clock, a store in memory that follows it, and a sweeper of the store."""
    clock = FrozenClock()
    store = MemoryStore(clock=clock)
    return clock, store, Sweeper(store, SHORT_LEASE, 3600.0)


def test_shared_crashes_are_charged_after_many_in_a_row() -> None:
    """Regression: a poison job that never ran alone, such as with several workers in its process, was never charged."""
    clock, store, sweeper = swept_store()
    run_sync(
        store.apply([Write("poison", plan_create(submit_fields("t", params=None, max_attempts=2), new_operation_id()))])
    )
    crashes: list[int] = []
    for number in range(MAX_UNCHARGED_CRASHES + 3):
        run_sync(
            store.apply([Write(f"good{number}", plan_create(submit_fields("t", params=None), new_operation_id()))])
        )
        for job_id in ("poison", f"good{number}"):
            start = plan_start(new_operation_id(), nonce=new_nonce(), lease=1, worker=f"gone:{number}:1:1")
            assert run_sync(store.apply([Write(job_id, start)])).outcomes[0].accepted
        clock.advance(0.4)
        run_sync(sweeper.sweep())
        job = run_sync(store.get("poison"))
        assert job is not None
        crashes.append(job.crashes)
    assert crashes == [0] * MAX_UNCHARGED_CRASHES + [1, 2, 3]
    ended_job = run_sync(store.get("poison"))
    assert ended_job is not None
    assert ended_job.failure is not None
    assert (ended_job.status, ended_job.failure.kind) == ("failed", "crash_loop")


PROGRAM = """
    import os, sys
    from milepost import Jobs, Run, Settings
    from milepost.worker import Worker

    url, namespace, lease = sys.argv[1:]
    jobs = Jobs(url, options=Settings(namespace=namespace, lease=float(lease), sweep=0.2, heartbeat=0.05))

    @jobs.job("poison")
    def poison(run: Run) -> None:
        os.kill(os.getpid(), 9)

    @jobs.job("good")
    async def good(run: Run) -> None:
        import asyncio
        await asyncio.sleep(0.2)

    Worker(jobs, concurrency=4).run()
"""


@pytest.mark.timing
def test_poison_job_of_script_is_charged(shared_url: str, namespace: str, tmp_path: Path) -> None:  # fmt: skip
    """Regression: a handler of `python app.py` that killed its process was never charged while other jobs were pending."""
    program = tmp_path / "app.py"
    program.write_text(textwrap.dedent(PROGRAM))
    lease = slowness()  # seconds
    jobs = Jobs(shared_url, options=Settings(namespace=namespace, lease=lease, sweep=0.2))
    poison = jobs.enqueue("poison")
    killed = 0
    worker = None
    try:
        while not (found := jobs.get_job(poison.job_id)) or not found.is_terminal:
            if worker is None or worker.poll() is not None:
                assert worker is None or worker.returncode == -signal.SIGKILL
                killed += worker is not None
                assert killed <= 5
                worker = subprocess.Popen([sys.executable, str(program), shared_url, namespace, str(lease)])
            for _ in range(6 - jobs.count_jobs("good", "pending")):
                jobs.enqueue("good")
            asyncio.run(asyncio.sleep(0.02))
    finally:
        if worker is not None:
            worker.kill()
            worker.wait()
        jobs.close()
    assert found.failure is not None
    assert (found.status, found.failure.kind, found.crashes) == ("failed", "crash_loop", 3)
    assert killed <= 4, "one crash with company, and three that are charged"


@pytest.mark.parametrize("renewed", [False, True])
def test_first_loss_of_unrenewed_lease_is_not_charged(renewed: bool) -> None:
    """Regression: a job whose claim got a lost reply was charged a crash though its code had never started."""
    clock, store, sweeper = swept_store()
    run_sync(store.apply([Write("a", plan_create(submit_fields("t", params=None), new_operation_id()))]))
    crashes = []
    for number in range(3):
        start = plan_start(
            new_operation_id(), nonce=new_nonce(), lease=SHORT_LEASE.lease_micros, worker=f"gone:{number}:1:1"
        )
        run_sync(store.apply([Write("a", start)]))
        job = run_sync(store.get("a"))
        assert job is not None
        clock.advance(0.3)
        run_sync(sweeper.sweep())
        if renewed:
            assert run_sync(store.renew([("a", job.record["token"])], SHORT_LEASE.lease_micros)) == ["live"]
        for _ in range(5):
            clock.advance(0.3)
            run_sync(sweeper.sweep())
        job = run_sync(store.get("a"))
        assert job is not None
        assert job.status != "running"
        crashes.append(job.crashes)
    assert crashes == ([1, 2, 3] if renewed else [0, 1, 2])


@pytest.mark.parametrize("known", ["", "renewed", "reported"])
def test_lost_run_that_may_not_have_started_says_so(known: str) -> None:
    """Regressions: a job with on_lost="fail" whose claim got a lost reply failed as if its code had run, and one whose run
    had reported progress as if its code might not have run."""
    clock, store, sweeper = swept_store()
    fields = submit_fields("t", params=None, on_lost="fail")
    run_sync(store.apply([Write("a", plan_create(fields, new_operation_id()))]))
    start = plan_start(new_operation_id(), nonce=new_nonce(), lease=SHORT_LEASE.lease_micros, worker="gone:1:1:1")
    started = run_sync(store.apply([Write("a", start)])).outcomes[0].job
    assert started is not None
    clock.advance(0.3)
    if known == "renewed":
        assert run_sync(store.renew([("a", started.record["token"])], SHORT_LEASE.lease_micros)) == ["live"]
    elif known == "reported":
        report = plan_report(new_operation_id(), started.record["token"], {"message": "page 1"})
        assert run_sync(store.apply([Write("a", report)])).outcomes[0].accepted
    for _ in range(6):
        run_sync(sweeper.sweep())
        clock.advance(0.3)
    run_sync(sweeper.sweep())
    job = run_sync(store.get("a"))
    assert job is not None
    assert (job.status, job.crashes) == ("failed", 0)
    assert job.error is not None
    assert ("the code may not have started" in job.error) is (not known)
