"""The dispatcher with a task queue that runs messages in this process, on command of the test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from milepost import AsyncRun, Job, Jobs, Retry, Run
from milepost.core.errors import InvalidInputError, StoreUnavailableError
from milepost.integrations import TaskQueueUnavailableError
from milepost.stores.protocol import ApplyResult, Claim, Write
from milepost.stores.sync_bridge import run_sync
from milepost.worker import registry
from milepost.worker.message_delivery import deliver, requeue
from milepost.worker.message_execution import BadParametersError, MessageExecution, NotDelivered
from tests.integrations.direct_task_queue import DirectTaskQueue, ended
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timing


def test_job_run_before_dispatch_recorded_is_redispatched(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]],
) -> None:
    """The record of the first dispatch must not count for the second message."""
    jobs, task_queue = make_jobs()

    @jobs.job("twice", max_attempts=2)
    def twice(run: Run) -> int:
        if run.attempt == 1:
            raise Retry(0.5)  # pending, and not due yet, when the note is written
        return run.attempt

    job = ended(jobs, jobs.submit(twice).job_id)
    assert (job.status, job.result) == ("completed", 2)
    assert set(task_queue.sent) == {job.job_id}


def test_completed_job_does_not_compute_a_backoff(make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]]) -> None:
    jobs, _ = make_jobs()
    attempts: list[int] = []

    def delay(attempt: int) -> float:
        attempts.append(attempt)
        return 0

    @jobs.job("noted", max_attempts=2, backoff=delay)
    def noted(run: Run) -> str:
        if run.attempt == 1:
            raise Retry
        return "done"

    assert ended(jobs, jobs.submit(noted).job_id).result == "done"
    assert attempts == [1]


def test_requeue_logs_name_of_error_without_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "milepost.task_queue"):
        assert requeue(DirectTaskQueue(), "id", "noted", SystemExit())
    assert "job id: message requeued: SystemExit" in caplog.text


def test_rejected_message_waits_with_reason(make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]]) -> None:
    jobs, task_queue = make_jobs()

    @jobs.job("noted")
    def noted(run: Run) -> str:
        return "done"

    task_queue.down = True
    job_id = jobs.submit(noted).job_id
    waiting = jobs.get_job(job_id)
    assert waiting is not None
    assert (waiting.status, waiting.stalled) == ("pending", "here cannot be reached: no broker")
    task_queue.down = False
    job = ended(jobs, job_id)
    assert (job.result, job.stalled) == ("done", None)
    assert set(task_queue.sent) == {job_id}


def test_dispatches_are_recorded_in_batches_and_at_close(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milepost.worker.dispatcher.RECORD_INTERVAL", 3600.0)
    jobs, task_queue = make_jobs()
    monkeypatch.setattr(task_queue, "send", lambda job: task_queue.sent.append(job.job_id))

    @jobs.job("noted")
    def noted(run: Run) -> None:
        """Never run."""

    ids = [jobs.submit(noted).job_id for _ in range(3)]
    jobs.close()
    now = run_sync(jobs.store.now())
    for job_id in ids:
        job = jobs.get_job(job_id)
        assert job is not None
        assert int(job.record["stale"]) > now + 1_000_000_000, "its message counts as lost after an hour"
    assert task_queue.sent == ids


def test_message_used_up_without_a_handler_is_sent_again_soon(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]],
) -> None:
    """A job whose second message reached a worker without its handler, as the first had, waited an hour for the next one."""
    (jobs, task_queue), (older, older_queue) = make_jobs(), make_jobs()

    @jobs.job("noted")
    def noted(run: Run) -> None:
        """Not reached."""

    def use_up(job: Job) -> None:
        task_queue.sent.append(job.job_id)
        with pytest.raises(NotDelivered):
            deliver(older, older_queue, job.job_id, job.job_type)

    task_queue.send = use_up  # type: ignore[method-assign]
    task_queue.dispatcher.disable_thread()  # so each send is noted before the submit returns
    job_id = jobs.submit(noted.options(unique_key="one")).job_id
    assert jobs.submit(noted.options(unique_key="one", on_duplicate="return")).job_id == job_id
    job = jobs.get_job(job_id)
    assert job is not None
    assert (task_queue.sent, "no handler" in (job.stalled or "")) == ([job_id] * 2, True)
    assert int(job.record["stale"]) < run_sync(jobs.store.now()) + 60_000_000


def test_suspended_job_found_by_its_key_continues_in_time(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]],
) -> None:
    """A suspended job that a submit with its unique key returned continued an hour after its time."""
    jobs, task_queue = make_jobs()

    @jobs.job("sleeper")
    def sleeper(run: Run) -> None:
        run.sleep("nap", 600)

    dispatcher = task_queue.dispatcher
    dispatcher.disable_thread()  # so each send is noted before the submit returns
    job_id = jobs.submit(sleeper.options(unique_key="one")).job_id
    suspended = jobs.get_job(job_id)
    assert suspended is not None
    assert "wake_at" in suspended.record
    assert jobs.submit(sleeper.options(unique_key="one", on_duplicate="return")).job_id == job_id
    job = jobs.get_job(job_id)
    assert job is not None
    assert int(job.record["stale"]) <= int(job.record["wake_at"])
    assert task_queue.sent == [job_id]


def test_submit_in_job_survives_failed_dispatch_record(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, task_queue = make_jobs()

    @jobs.job("noted")
    def noted(run: Run) -> str:
        return "done"

    dispatcher = jobs.dispatcher
    assert dispatcher is not None
    dispatcher.disable_thread()  # as in a process that runs the code of a job

    class Away:
        async def apply(self, writes: Sequence[Write]) -> ApplyResult:
            raise StoreUnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(dispatcher, "_blocking", Away)
        job_id = jobs.submit(noted).job_id
    assert task_queue.sent == [job_id]
    assert dispatcher.has_unrecorded
    dispatcher.record_dispatched()
    assert not dispatcher.has_unrecorded
    assert ended(jobs, job_id).result == "done"


def test_result_not_json_is_text_in_record(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]],
) -> None:
    jobs, task_queue = make_jobs()

    @jobs.job("noted")
    def noted(run: Run) -> None:
        """Run by the test."""

    task_queue.down = True
    job = jobs.submit(noted)
    assert MessageExecution(jobs, task_queue, job.job_id).execute(lambda run: 7j) == 7j
    kept = jobs.get_job(job.job_id)
    assert kept is not None
    assert (kept.status, kept.result, kept.result_text) == ("completed", None, "7j")
    assert (kept.result_error or "").startswith("result: complex is not JSON-serialisable")


@pytest.mark.parametrize("is_async", [False, True])
def test_older_worker_leaves_message_to_newer_release(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]], monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """Regression: an old worker that got the message of a job with a new parameter failed it at its first attempt."""
    monkeypatch.setattr(registry, "LEFT_TO_NEWER_SECONDS", 0.2)
    (old, old_queue), (new, new_queue) = make_jobs(), make_jobs()
    old_queue.down = new_queue.down = True

    async def amail(run: AsyncRun, to: str) -> str:
        return "old"

    def mail(run: Run, to: str) -> str:
        return "old"

    @new.job("mail", max_attempts=3)
    def newer(run: Run, to: str, token: str = "") -> str:
        return "new"

    old.job("mail", max_attempts=3)(amail if is_async else mail)
    new_queue.dispatcher.register_worker(1)
    until(new.job_types)
    job_id = new.submit("mail", {"to": "a", "token": "x"}).job_id
    with pytest.raises(NotDelivered):
        deliver(old, old_queue, job_id, "mail")
    new_queue.down = False
    done = new.wait(job_id, PATIENCE)
    assert (done.status, done.result, done.attempt) == ("completed", "new", 1)


def test_message_with_parameters_that_only_code_refuses_fails_its_job(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]],
) -> None:
    """Regression: it was left to a newer release for ever, since the type that its own workers publish counted as one."""
    (jobs, task_queue), (outside, outside_queue) = make_jobs(), make_jobs()
    task_queue.down = outside_queue.down = True

    @jobs.job("mail")
    def mail(run: Run, to: UUID) -> None:
        """Not reached."""

    task_queue.dispatcher.register_worker(1)
    until(outside.job_types)
    job_id = outside.submit("mail", {"to": "ana"}).job_id
    with pytest.raises(BadParametersError):
        deliver(jobs, task_queue, job_id, "mail")
    failed = jobs.get_job(job_id)
    assert failed is not None
    assert failed.failure is not None
    assert failed.failure.kind == "bad_parameters"


@pytest.mark.parametrize("is_async", [False, True])
def test_hook_is_called_after_delivered_job(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]], is_async: bool
) -> None:
    jobs, _ = make_jobs()
    ended: list[tuple[str, str]] = []

    def hook(job: Job) -> None:
        ended.append((job.job_id, job.status.value))

    async def ahook(job: Job) -> None:
        hook(job)

    @jobs.job("hooked", on_completed=ahook if is_async else hook, on_failed=ahook if is_async else hook)
    def hooked(run: Run, error: str) -> None:
        if error:
            raise Retry(error)

    good = jobs.submit(hooked, error="")
    bad = jobs.submit(hooked, error="broken")
    assert ended == [(good.job_id, "completed"), (bad.job_id, "failed")]


def test_forced_stop_is_retried_during_outage(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, task_queue = make_jobs()
    monkeypatch.setattr(jobs._async, "settings", replace(jobs.settings, grace=0.05))

    @jobs.job("deaf", timeout=0.1)
    def deaf(run: Run) -> None:
        """Run by the test."""

    task_queue.down = True
    job_id = jobs.submit(deaf).job_id
    delivery = MessageExecution(jobs._async, task_queue, job_id)
    asked: list[bool] = []
    stop_requested = threading.Event()
    apply = delivery.heartbeat.store.apply
    lost: list[str] = []

    async def away_once(writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        if not lost and writes[-1].change.transition.name == "fail":
            lost.append(writes[-1].job_id)
            raise StoreUnavailableError("away")
        return await apply(writes, claim)

    def stop(message: Any, *, hard: bool) -> str | None:
        asked.append(hard)
        if len(asked) == 1:
            raise TaskQueueUnavailableError("no broker")
        if hard:
            stop_requested.set()
        return "by force"

    monkeypatch.setattr(delivery.heartbeat.store, "apply", away_once)
    monkeypatch.setattr(task_queue, "stop", stop)

    def code(run: Run) -> None:
        assert stop_requested.wait(PATIENCE)
        until(lambda: (job := jobs.get_job(job_id)) is not None and job.is_terminal)

    delivery.execute(code)
    job = jobs.get_job(job_id)
    assert job is not None
    assert job.failure is not None
    assert (lost, job.failure.kind) == ([job_id], "timeout")
    assert asked == [False, False, True]


def test_closing_application_closes_task_queue(make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]]) -> None:
    jobs, task_queue = make_jobs()
    jobs.close()
    assert task_queue.closed == 1


def test_memory_store_is_rejected() -> None:
    with pytest.raises(InvalidInputError, match="set MILEPOST_URL, or the URL of Jobs"):
        Jobs("memory://", task_queue=DirectTaskQueue())


@pytest.mark.parametrize("option", [{"queue": "gpu"}, {"concurrency": 2}, {"isolation": "process"}])
def test_options_of_own_workers_are_rejected(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]], option: Any
) -> None:
    jobs, task_queue = make_jobs()
    with pytest.raises(InvalidInputError, match=f"not supported with {task_queue.name}; configure it in"):
        jobs.job("render", **option)


def test_job_rejected_by_task_queue_fails_alone(
    make_jobs: Callable[[], tuple[Jobs, DirectTaskQueue]],
) -> None:
    """One job with arguments that its task queue refuses had stopped the dispatch of every other job of that task queue."""
    jobs, task_queue = make_jobs()

    @jobs.job("noted")
    def noted(run: Run) -> str:
        return "done"

    task_queue.down = True
    wrong, broken, fine = (jobs.submit(noted).job_id for _ in range(3))
    send = task_queue.send

    def picky(job: Job) -> None:
        if job.job_id == wrong:
            raise InvalidInputError("params", "got an unexpected keyword argument 'z'")
        if job.job_id == broken:
            raise RuntimeError("a defect")
        send(job)

    task_queue.send = picky  # type: ignore[method-assign]
    task_queue.down = False
    assert ended(jobs, fine).result == "done"
    failed = ended(jobs, wrong)
    assert failed.failure is not None
    assert (failed.status, failed.failure.kind) == ("failed", "bad_parameters")
    assert failed.error == "params: got an unexpected keyword argument 'z'"

    def reason() -> bool:
        job = jobs.get_job(broken)
        return job is not None and "a defect" in (job.stalled or "")

    until(reason)
