"""The hooks `on_completed` and `on_failed`: when they are called, with what, and that they never change the end."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from typing import Any

import pytest

from milepost import AsyncJobs, Fail, InvalidInputError, Job, Jobs, Run, Settings
from milepost.worker.handlers import Handlers
from tests.worker.conftest import MakeJobs, Workers
from tests.worker.job_assertions import Signals, ended

pytestmark = pytest.mark.timing

PATIENCE = 120.0


class Calls:
    """Hooks that tell the test about their calls."""

    def __init__(self) -> None:
        self._made: queue.Queue[tuple[str, Job, bool]] = queue.Queue()

    def on_completed(self, job: Job) -> None:
        self._made.put(("completed", job, _in_loop()))

    def on_failed(self, job: Job) -> None:
        self._made.put(("failed", job, _in_loop()))

    async def async_on_completed(self, job: Job) -> None:
        await asyncio.sleep(0)
        self._made.put(("completed", job, _in_loop()))

    async def async_on_failed(self, job: Job) -> None:
        self._made.put(("failed", job, _in_loop()))

    def next(self) -> tuple[str, Job, bool]:
        return self._made.get(timeout=PATIENCE)

    @property
    def is_empty(self) -> bool:
        return self._made.empty()


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("is_async", [False, True])
def test_hook_gets_ended_job(jobs: Jobs, is_async: bool) -> None:
    calls = Calls()

    @jobs.job(
        "work",
        on_completed=calls.async_on_completed if is_async else calls.on_completed,
        on_failed=calls.async_on_failed if is_async else calls.on_failed,
    )
    def work(run: Run, error: str) -> str:
        if error:
            raise Fail(error)
        return "x" * 100_000

    with jobs.run_workers():
        good = ended(jobs, jobs.submit(work, error=""))
        assert calls.next() == ("completed", good, is_async)
        bad = ended(jobs, jobs.submit(work, error="no such page"))
        name, job, _ = calls.next()
    assert (name, job.status, job.error, job) == ("failed", "failed", "no such page", bad)
    assert good.result == "x" * 100_000
    assert calls.is_empty


def test_failure_hook_waits_for_last_attempt(jobs: Jobs) -> None:
    calls = Calls()

    @jobs.job(
        "flaky", max_attempts=3, backoff=lambda attempt: 0, on_completed=calls.on_completed, on_failed=calls.on_failed
    )
    def flaky(run: Run, good: int) -> None:
        if run.attempt < good:
            raise ValueError(f"attempt {run.attempt}")

    with jobs.run_workers():
        ended(jobs, jobs.submit(flaky, good=3))
        name, job, _ = calls.next()
        assert (name, job.attempt) == ("completed", 3)
        ended(jobs, jobs.submit(flaky, good=9))
        name, job, _ = calls.next()
        assert (name, job.attempt, job.error) == ("failed", 3, "attempt 3")
    assert calls.is_empty


def test_hook_is_not_called_for_cancelled_job(jobs: Jobs, signals: Signals) -> None:
    calls = Calls()

    @jobs.job("waits", on_completed=calls.on_completed, on_failed=calls.on_failed)
    def waits(run: Run) -> None:
        signals.began.set()
        signals.let_go.wait(PATIENCE)

    with jobs.run_workers():
        job = jobs.submit(waits)
        assert signals.began.wait(PATIENCE)
        jobs.cancel_job(job.job_id)
        signals.let_go.set()
        assert ended(jobs, job).status == "cancelled"
    assert calls.is_empty  # the worker has waited for its hooks


def test_failure_hook_is_called_after_timeout_of_deaf_handler(make_jobs: MakeJobs, signals: Signals) -> None:
    calls, jobs = Calls(), make_jobs(grace=0.1)

    @jobs.job("deaf", timeout=0.1, on_failed=calls.on_failed)
    def deaf(run: Run) -> None:
        signals.let_go.wait(PATIENCE)

    with jobs.run_workers():
        jobs.submit(deaf)
        name, job, _ = calls.next()
        assert (name, job.status, job.error) == ("failed", "failed", "timeout of 0.1 s exceeded")
        signals.let_go.set()
    assert calls.is_empty


def test_hook_is_called_for_child_process(make_jobs: MakeJobs, workers: Workers) -> None:
    workers.start(module="tests.worker.hooked")
    jobs = workers.jobs()
    job = jobs.enqueue("hooked-isolated", {"error": ""})
    (line,) = workers.noted(f"completed {job.job_id}")
    (ran,) = workers.noted(f"ran {job.job_id}")
    assert line.split()[2] != ran.split()[2]  # the hook runs in the worker
    job = jobs.enqueue("hooked-isolated", {"error": "broken"})
    assert len(workers.noted(f"failed {job.job_id}")) == 1
    jobs.close()


def test_hook_is_lost_with_killed_worker_and_called_once_by_the_next(workers: Workers) -> None:
    jobs = workers.jobs()
    first = workers.start(module="tests.worker.hooked")
    job = jobs.enqueue("hooked-waits")
    workers.noted(f"waits {job.job_id}")
    first.kill()
    first.wait()
    workers.start(module="tests.worker.hooked")
    workers.noted(f"waits {job.job_id}", 2)
    (workers.log.parent / "go").touch()
    assert len(workers.noted(f"completed {job.job_id}")) == 1
    assert ended(jobs, job).status == "completed"
    jobs.close()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("error", [LookupError("no mail server"), SystemExit(3)])
def test_error_of_hook_is_logged_and_changes_nothing(
    jobs: Jobs, caplog: pytest.LogCaptureFixture, is_async: bool, error: BaseException
) -> None:
    def hook(job: Job) -> None:
        raise error

    async def ahook(job: Job) -> None:
        raise error

    @jobs.job("work", on_completed=ahook if is_async else hook)
    def work(run: Run) -> str:
        return "done"

    with caplog.at_level(logging.ERROR, "milepost.worker"), jobs.run_workers():
        job = ended(jobs, jobs.submit(work))
        other = ended(jobs, jobs.submit(work))
    assert (job.status, job.result, other.status) == ("completed", "done", "completed")
    (one, _) = [record for record in caplog.records if "hook" in record.getMessage()]
    assert f"job {job.job_id} (work): hook" in one.getMessage()
    assert "the job stays completed" in one.getMessage()
    assert one.exc_info is not None


def test_slow_hook_holds_no_slot_of_the_worker(jobs: Jobs, signals: Signals) -> None:
    def hook(job: Job) -> None:
        signals.began.set()
        signals.let_go.wait(PATIENCE)

    @jobs.job("work", on_completed=hook)
    def work(run: Run) -> None: ...

    with jobs.run_workers(concurrency=1):
        ended(jobs, jobs.submit(work))
        assert signals.began.wait(PATIENCE)
        assert ended(jobs, jobs.submit(work)).status == "completed"
        signals.let_go.set()


def test_worker_waits_for_hooks_within_the_grace_period(make_jobs: MakeJobs) -> None:
    jobs, started, calls = make_jobs(grace=PATIENCE), threading.Event(), Calls()

    async def hook(job: Job) -> None:
        started.set()
        await asyncio.to_thread(stopping.wait, PATIENCE)
        await calls.async_on_completed(job)

    stopping = threading.Event()

    @jobs.job("work", on_completed=hook)
    def work(run: Run) -> None: ...

    with jobs.run_workers() as group:
        job = jobs.submit(work)
        assert started.wait(PATIENCE)
        for worker in group.workers:
            worker.stop()
        stopping.set()
    assert calls.next()[1].job_id == job.job_id


async def test_async_api_has_hooks(url: str, namespace: str) -> None:
    jobs = AsyncJobs(url, options=Settings(namespace=namespace, grace=0.5))
    seen: asyncio.Queue[Job] = asyncio.Queue()

    async def hook(job: Job) -> None:
        await seen.put(job)

    @jobs.job("work", on_completed=hook)
    async def work(run: Run) -> int:
        return 7

    async with jobs.run_workers():
        job = await jobs.submit(work)
        found = await asyncio.wait_for(seen.get(), PATIENCE)
    assert (found.job_id, found.status, found.result) == (job.job_id, "completed", 7)
    await jobs.close()


@pytest.mark.parametrize("hook", ["notify", 7, lambda: None, lambda one, two: None])
@pytest.mark.parametrize("name", ["on_completed", "on_failed"])
def test_hook_that_cannot_be_called_is_refused(name: str, hook: Any) -> None:
    options: Any = {name: hook}
    with pytest.raises(InvalidInputError, match="give a function of one parameter, the ended job") as caught:
        Handlers().job("work", **options)
    assert caught.value.field == name
