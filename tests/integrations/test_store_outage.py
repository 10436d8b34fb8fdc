"""Deliveries during a store outage, with a task queue that runs messages only on command of the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from milepost import Job, Jobs, Run, settings
from milepost.core.errors import OutcomeUnknownError, RunStop, StoreUnavailableError
from milepost.integrations import TaskQueueUnavailableError
from milepost.stores.protocol import ApplyResult, Claim, Store, Write
from milepost.worker.dispatcher import Dispatcher
from milepost.worker.handlers import Application
from milepost.worker.message_delivery import adeliver, deliver
from milepost.worker.message_execution import NotDelivered
from tests.chaos.calibration import slowness
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.timing


class WorkerExit(Exception):
    """The exception with which this task queue ends running code."""


class QueuedMessages:
    """A task queue that keeps its messages until the test delivers them."""

    name = "kept"
    lost_after = 3600.0

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.requeued: list[str] = []
        self.problem: Callable[[str], Exception | None] = lambda job_id: None

    def serve(self, app: Application, dispatcher: Dispatcher) -> None:
        """Do nothing."""

    def send(self, job: Job) -> None:
        """Keep a message."""
        self._fail(job.job_id)
        self.messages.append(job.job_id)

    def requeue(self, job_id: str, job_type: str, delay: float) -> None:
        """Keep it again."""
        self._fail(job_id)
        self.requeued.append(job_id)

    def _fail(self, job_id: str) -> None:
        problem = self.problem(job_id)
        if problem is not None:
            raise problem

    def stop(self, message: Any, *, hard: bool) -> str | None:
        """Return None: this task queue cannot stop code."""
        return None

    def is_exit(self, error: BaseException) -> bool:
        """Return whether this task queue raised the error."""
        return isinstance(error, WorkerExit)

    def close(self) -> None:
        """Do nothing."""


class StoreOutage:
    """Intercepts the writes of deliveries. `problem` returns the error of the next one, or None.

    With `loses_answers` the writes are applied, and only their answers are lost.
    """

    def __init__(self) -> None:
        self.problem: Callable[[], BaseException | None] = lambda: None
        self.loses_answers = False
        self.tries: list[str] = []

    def before(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand before a store."""
        apply = store.apply

        async def failing(writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
            name = writes[-1].change.transition.name if writes else ""
            problem = None
            if name in ("deliver", "complete", "release"):
                self.tries.append(name)
                problem = self.problem()
            if problem is None:
                return await apply(writes, claim)
            if self.loses_answers:
                await apply(writes, claim)
            raise problem

        monkeypatch.setattr(store, "apply", failing)


class OutageFixture:
    """An application, its task queue, and the outage before the store of its deliveries."""

    def __init__(self, jobs: Jobs, task_queue: QueuedMessages, api: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jobs = jobs
        self.task_queue = task_queue
        self.job_type = "noted" if api == "sync" else "anoted"
        self.gate = threading.Event()
        self.gate.set()
        self.outage = StoreOutage()
        self._store = jobs._async.store.with_blocking(blocking=False)
        app = jobs._async
        self.outage.before(self._store if api == "async" else app.runtime.heartbeat.store, monkeypatch)

        @jobs.job("noted", max_attempts=2)
        def noted(run: Run) -> int:
            self.gate.wait(PATIENCE)
            return run.attempt

        @jobs.job("anoted", max_attempts=2)
        async def anoted(run: Run) -> int:
            await asyncio.to_thread(self.gate.wait, PATIENCE)
            return run.attempt

    @property
    def lease(self) -> float:
        """Return the lease of the runs, in seconds."""
        return self.jobs._async.settings.lease

    def submit(self) -> str:
        """Record a job, whose message the task queue keeps."""
        return self.jobs.submit(self.job_type).job_id

    def deliver(self, job_id: str) -> Any:
        """Deliver the message of a job to a worker of the task queue."""
        app = self.jobs._async
        if self.job_type == "noted":
            return deliver(app, self.task_queue, job_id, "noted")
        return asyncio.run(adeliver(app, self.task_queue, job_id, "anoted", store=self._store))

    def job(self, job_id: str) -> Job:
        """Return the record."""
        job = self.jobs.get_job(job_id)
        assert job is not None
        return job


@pytest.fixture(params=["sync", "async"])
def api(request: pytest.FixtureRequest) -> str:
    """Return both kinds of handlers."""
    name: str = request.param
    return name


@pytest.fixture(params=["sqlite", "redis"])
def scene(request: pytest.FixtureRequest, api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OutageFixture]:
    """Yield a scene on each store that several processes can share."""
    monkeypatch.setenv("MILEPOST_SWEEP", "0.1")
    monkeypatch.setenv("MILEPOST_LEASE", str(2 * slowness()))
    monkeypatch.setenv("MILEPOST_GRACE", "0.2")
    monkeypatch.setattr("milepost.worker.message_execution.RETRY_INTERVAL", 0.01)
    monkeypatch.setattr("milepost.worker.message_execution.START_TIMEOUT", PATIENCE)  # leases are long here
    if request.param == "redis":
        monkeypatch.setenv("MILEPOST_NAMESPACE", request.getfixturevalue("redis_namespace"))
    settings.settings.reload()
    task_queue = QueuedMessages()
    jobs = Jobs(request.getfixturevalue(f"{request.param}_url"), task_queue=task_queue)
    yield OutageFixture(jobs, task_queue, api, monkeypatch)
    monkeypatch.undo()
    jobs.close()
    settings.settings.reload()


def test_delivery_during_outage_requeues_message(scene: OutageFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that arrived during an outage of the store was dropped, and its job waited for an hour."""
    monkeypatch.setattr("milepost.worker.message_execution.START_TIMEOUT", 0.0)
    job_id = scene.submit()
    scene.outage.problem = lambda: StoreUnavailableError("away")
    with pytest.raises(NotDelivered):
        scene.deliver(job_id)
    assert scene.task_queue.requeued == [job_id]
    assert scene.job(job_id).status == "pending"
    scene.outage.problem = lambda: None
    assert scene.deliver(job_id) == 1
    job = scene.job(job_id)
    assert (job.status, job.result, job.attempt, job.crashes) == ("completed", 1, 1, 0)


def test_delivery_waits_while_store_and_queue_are_away(scene: OutageFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message was also lost if the broker was unavailable together with the store."""
    monkeypatch.setattr("milepost.worker.message_execution.START_TIMEOUT", 0.0)
    job_id = scene.submit()
    scene.task_queue.problem = lambda job_id: TaskQueueUnavailableError("no broker")
    scene.outage.problem = lambda: StoreUnavailableError("away") if len(scene.outage.tries) < 4 else None
    assert scene.deliver(job_id) == 1
    assert (scene.task_queue.requeued, scene.job(job_id).status) == ([], "completed")


def test_worker_exit_during_outage_requeues_message(scene: OutageFixture) -> None:
    """Messages held by a worker that was stopped during an outage were acknowledged and dropped."""
    job_id = scene.submit()
    scene.outage.problem = lambda: WorkerExit("asked to stop")
    with pytest.raises(WorkerExit):
        scene.deliver(job_id)
    assert scene.task_queue.requeued == [job_id]
    assert scene.job(job_id).status == "pending"


def test_start_with_lost_answer_continues(scene: OutageFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that the store had applied without an answer was given up: its lease ran out, and a crash was charged."""
    monkeypatch.setattr("milepost.worker.message_execution.START_TIMEOUT", 0.0)
    job_id = scene.submit()
    scene.outage.loses_answers = True
    scene.outage.problem = lambda: OutcomeUnknownError("no answer") if len(scene.outage.tries) < 3 else None
    assert scene.deliver(job_id) == 1
    job = scene.job(job_id)
    assert (scene.task_queue.requeued, job.status, job.attempt, job.crashes) == ([], "completed", 1, 0)


def test_start_delayed_beyond_lease_is_not_stopped(scene: OutageFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that had waited for the store for a lease was stopped as soon as it began."""
    monkeypatch.setattr("milepost.worker.message_execution.RETRY_INTERVAL", 0.6 * scene.lease)
    monkeypatch.setattr("milepost.run.sweeper.Sweeper._sweep_until", _swept)
    job_id = scene.submit()
    scene.outage.loses_answers = True
    scene.outage.problem = lambda: OutcomeUnknownError("no answer") if len(scene.outage.tries) < 3 else None
    scene.gate.clear()
    opened = threading.Timer(1.5 * scene.lease, scene.gate.set)
    opened.start()
    try:
        assert scene.deliver(job_id) == 1
    finally:
        opened.cancel()
    assert scene.job(job_id).status == "completed"


def test_start_with_expired_lease_runs_once(scene: OutageFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start whose answer came after its lease had run out must not run the job under a token that is no longer its own."""
    monkeypatch.setattr("milepost.worker.message_execution.RETRY_INTERVAL", 0.05)
    job_id = scene.submit()
    scene.outage.loses_answers = True
    lost: list[bool] = []

    def until_lost() -> Exception | None:
        if len(scene.outage.tries) > 1 and scene.job(job_id).crashes:
            lost.append(True)
        return None if lost else OutcomeUnknownError("no answer")

    scene.outage.problem = until_lost
    with suppress(NotDelivered):  # the sweeper has sent another message then
        scene.deliver(job_id)
    if scene.job(job_id).status == "pending":
        until(lambda: len(scene.task_queue.messages) == 2)
        scene.deliver(job_id)
    job = scene.job(job_id)
    assert (job.status, job.attempt, job.crashes) == ("completed", 1, 1)


def test_outcome_is_written_after_long_outage(scene: OutageFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that had ended during an outage of more than a lease was thrown away, and done again."""
    monkeypatch.setattr("milepost.worker.message_execution.RETRY_INTERVAL", 0.4 * scene.lease)
    job_id = scene.submit()
    monkeypatch.setattr("milepost.run.sweeper.Sweeper._sweep_until", _swept)

    def away() -> Exception | None:
        ends = [name for name in scene.outage.tries if name != "deliver"]
        return StoreUnavailableError("away") if 0 < len(ends) < 5 else None

    scene.outage.problem = away
    assert scene.deliver(job_id) == 1
    job = scene.job(job_id)
    assert (job.status, job.result, job.attempt, job.crashes) == ("completed", 1, 1, 0)


async def _swept(sweeper: Any, until: float) -> int:
    """Return when the sweeper has seen the outage too, and has taken no job for lost meanwhile."""
    return 0


def test_message_before_previous_stop_is_resent(scene: OutageFixture) -> None:
    """A job that was tried again while its old code was still stopping waited for an hour: its message came too early."""
    job_id = scene.submit()

    def retry() -> str:
        scene.jobs.cancel_job(job_id)
        scene.jobs.retry_job(job_id)
        return job_id

    check_resent(scene, job_id, retry, attempt=2)


def test_message_before_stop_of_superseded_job_is_resent(scene: OutageFixture) -> None:
    """A job that had superseded another one, whose code was still stopping, waited for an hour."""
    old = scene.jobs.submit(scene.job_type, unique_key="report").job_id

    def supersede() -> str:
        return scene.jobs.submit(scene.job_type, unique_key="report", on_duplicate="supersede").job_id

    check_resent(scene, old, supersede, attempt=1)


def check_resent(scene: OutageFixture, stopping: str, submit_next: Callable[[], str], attempt: int) -> None:
    """Check that a message which comes while the code of an earlier run is stopping is sent again once that has stopped."""
    scene.gate.clear()
    running = threading.Thread(target=_until_stopped, args=(scene, stopping))
    running.start()
    until(lambda: scene.job(stopping).status == "running")
    job_id = submit_next()
    with pytest.raises(NotDelivered):
        scene.deliver(job_id)
    before = len(scene.task_queue.messages)
    scene.gate.set()
    running.join(PATIENCE)
    until(lambda: len(scene.task_queue.messages) > before)
    assert scene.deliver(job_id) == attempt
    assert scene.job(job_id).status == "completed"


def _until_stopped(scene: OutageFixture, job_id: str) -> None:
    with suppress(RunStop, NotDelivered):
        scene.deliver(job_id)


# --- dispatch ---


def test_rejected_message_does_not_block_others(scene: OutageFixture) -> None:
    """One job whose message the task queue refused ended the round: no job of that task queue was handed over any more."""
    bad = "bad"
    scene.task_queue.problem = lambda job_id: TypeError("no such argument") if job_id == bad else None
    scene.jobs.submit(scene.job_type, job_id=bad)
    job = scene.job(bad)
    assert (job.status, job.stalled) == ("pending", "kept rejected its message: TypeError: no such argument")
    ids = scene.jobs.submit_many(scene.job_type, [{}, {}])
    assert scene.task_queue.messages == ids


def test_unreachable_broker_is_tried_once_per_batch(scene: OutageFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of many submitted jobs waited for the timeout of an unavailable broker, one after the other."""
    tried: list[str] = []
    submitter = threading.current_thread()

    def slow(job_id: str) -> Exception:
        if threading.current_thread() is submitter:  # the sweep tries further jobs, one each time
            tried.append(job_id)
        threading.Event().wait(0.02)
        return TaskQueueUnavailableError("timed out")

    monkeypatch.setattr("milepost.worker.dispatcher.SLOW_FAILURE_SECONDS", 0.01)
    monkeypatch.setattr("milepost.worker.dispatcher.REDISPATCH_DELAY", 100_000)
    scene.task_queue.problem = slow
    ids = scene.jobs.submit_many(scene.job_type, [{}] * 50)
    assert tried == ids[:1]
    assert {scene.job(job_id).stalled for job_id in ids} == {"kept cannot be reached: timed out"}
    scene.task_queue.problem = lambda job_id: None
    until(lambda: len(scene.task_queue.messages) == 50)
