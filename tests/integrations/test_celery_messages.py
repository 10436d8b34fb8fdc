"""Messages of tracked tasks: store outages, reused task ids, invalid arguments."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from milepost import Job, Jobs, settings
from milepost.core.errors import InvalidInputError, LeaseLost, StoreUnavailableError, UnknownJobTypeError
from milepost.core.transitions import plan_deliver
from milepost.run.sweeper import Sweeper
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync
from tests.waiting import until

celery = pytest.importorskip("celery")

PATIENCE = 120.0

# Other tests import their applications anew, each time with the same shared tasks, which Celery gives to all applications.
pytestmark = pytest.mark.filterwarnings("ignore:Task name:celery.exceptions.DuplicateTaskNameWarning")


class StoreOutage:
    """Makes the store of this process raise outages for all calls, or for some `verbs`, while it is set."""

    def __init__(self, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, *verbs: str) -> None:
        self.is_set = False
        self.hold: threading.Event | None = None
        kind = type(jobs.store)
        for name in verbs or ("apply", "heartbeat", "get", "sweep"):
            monkeypatch.setattr(kind, name, self._guarded(getattr(kind, name)))

    def _guarded(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(store: Any, *args: Any, **kwargs: Any) -> Any:
            if self.hold is not None:
                self.hold.wait(PATIENCE)
            if self.is_set:
                raise StoreUnavailableError("away")
            return await verb(store, *args, **kwargs)

        return guarded


class Shop:
    """A Celery application in this process; `work` starts a worker with one thread."""

    def __init__(self, url: str) -> None:
        from milepost.integrations.celery import CeleryTaskQueue, current_run, tracked

        self.ran: list[tuple[Any, ...]] = []
        self.gate = threading.Event()
        self.app = celery.Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
        self.app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True)
        self.jobs = Jobs(url, task_queue=CeleryTaskQueue(self.app))
        self._workers: list[Any] = []

        @tracked(jobs=self.jobs)
        @self.app.task(name="shop.add", bind=True, max_retries=1, shared=False)
        def add(task: Any, x: int, y: int) -> int:
            self.ran.append((x, y, task.request.retries))
            return x + y

        @tracked(jobs=self.jobs)
        @self.app.task(name="shop.gives_back", bind=True, shared=False)
        def gives_back(task: Any) -> None:
            self.ran.append(("gives_back",))
            raise celery.exceptions.Reject("not for me", requeue=False)

        @tracked(jobs=self.jobs)
        @self.app.task(name="shop.waits", shared=False)
        def waits() -> str:
            self.ran.append(("waits",))
            try:
                while not self.gate.wait(0.01):
                    current_run().check()
            except LeaseLost:
                self.ran.append(("stopped",))
                raise
            return "opened"

        self.add, self.gives_back, self.waits = add, gives_back, waits

    def work(self) -> None:
        """Start the worker."""
        from celery.contrib.testing.worker import start_worker

        worker = start_worker(self.app, pool="solo", perform_ping_check=False, shutdown_timeout=PATIENCE)
        worker.__enter__()
        self._workers.append(worker)

    def is_published(self) -> bool:
        """Return whether the worker has published the type."""
        try:
            return self.jobs.job_type("shop.add").task_queue == "celery"
        except UnknownJobTypeError:
            return False

    def close(self) -> None:
        """End the worker, and forget the messages that are left."""
        self.gate.set()
        for worker in self._workers:
            worker.__exit__(None, None, None)
        self.jobs.close()
        with self.app.connection_for_write() as connection:
            connection.default_channel.queue_purge("celery")

    def ended(self, job_id: str) -> Job:
        """Return the job when it has ended."""

        def found() -> Job | None:
            job = self.jobs.get_job(job_id)
            return job if job is not None and job.is_terminal else None

        job: Job = until(found)
        return job


def leave_logging(**_: object) -> None:
    """Keep Celery from configuring the root logger, by a receiver of this signal."""


@pytest.fixture
def shop(sqlite_url: str, monkeypatch: pytest.MonkeyPatch, celery_signals: None) -> Iterator[Shop]:
    """Return an application whose waits are short."""
    from celery import signals

    monkeypatch.setenv("MILEPOST_SWEEP", "0.1")
    monkeypatch.setattr("milepost.worker.message_execution.START_TIMEOUT", 0.0)
    monkeypatch.setattr("milepost.integrations.celery.task_queue.STORE_RETRY_DELAY", 0.1)
    signals.setup_logging.connect(leave_logging)  # the worker is in this process, whose logging other tests look at
    made = Shop(sqlite_url)
    yield made
    made.close()


def test_task_id_of_waiting_job_is_used_again_with_a_warning(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """Regression: the second call with the id of a job that had not ended was dropped, and only an info line said so."""
    shop.add.apply_async((1, 2), task_id="nightly")
    assert "nightly" not in caplog.text
    shop.add.apply_async((1, 2), task_id="nightly")
    shop.work()
    assert shop.ended("nightly").result == 3
    assert [text for text in caplog.messages if "nightly" in text and "use a new task id for each call" in text]
    assert shop.ran == [(1, 2, 0)]


def test_task_id_of_waiting_job_with_other_arguments_runs(shop: Shop) -> None:
    """Regression: of two calls with one task id, the second never ran if the first was still waiting."""
    for args in ((1, 2), (3, 4)):
        shop.add.apply_async(args, task_id="nightly")
    shop.work()
    until(lambda: sorted(job.result or 0 for job in shop.jobs.list_jobs()) == [3, 7])
    assert shop.ended("nightly").result == 3
    assert sorted(shop.ran) == [(1, 2, 0), (3, 4, 0)]


def test_store_outage_fails_no_task_and_spends_no_retry(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store outage of two minutes failed each arriving task and used up its retries."""
    from milepost.integrations.celery import task_queue

    deliveries: list[str] = []
    postpone = task_queue.postpone

    def counted(task: Any, seconds: float) -> None:
        deliveries.append(task.request.id)
        postpone(task, seconds)

    monkeypatch.setattr(task_queue, "postpone", counted)
    recorded = shop.add.delay(1, 1)
    away = StoreOutage(shop.jobs, monkeypatch)
    away.is_set = True
    unrecorded = shop.add.delay(2, 2)
    shop.work()
    # Three deliveries of each, where the task has one retry of its own.
    until(lambda: len(deliveries) >= 6)
    away.is_set = False
    assert (recorded.get(timeout=PATIENCE), unrecorded.get(timeout=PATIENCE)) == (2, 4)
    assert sorted(shop.ran) == [(1, 1, 0), (2, 2, 0)]
    for result in (recorded, unrecorded):
        job = shop.ended(result.id)
        assert (job.status, job.attempt) == ("completed", 1)


@pytest.mark.timing
def test_delay_does_not_wait_for_silent_store(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A web request that called `delay()` hung for 30 s during a store outage."""
    away = StoreOutage(shop.jobs, monkeypatch)
    away.hold = threading.Event()
    began = time.monotonic()
    results = [shop.add.delay(3, number) for number in range(20)]
    assert time.monotonic() - began < 10.0, "one of them waits for about a second, the others do not"
    away.hold.set()
    away.hold = None
    shop.work()
    assert [result.get(timeout=PATIENCE) for result in results] == [3 + number for number in range(20)]
    assert all(shop.ended(result.id).status == "completed" for result in results)


def test_invalid_arguments_fail_only_their_job(shop: Shop) -> None:
    """A job submitted with arguments that Celery refuses stayed pending and held up every other job of the task queue."""
    shop.work()
    dispatcher = shop.jobs.dispatcher
    assert dispatcher is not None
    dispatcher.register_worker(1, [task.type for task in dispatcher.task_queue.tracked.values()])  # type: ignore[attr-defined]
    until(shop.is_published)
    with pytest.raises(InvalidInputError, match=r"kwargs\.z"):
        shop.jobs.submit("shop.add", {"kwargs": {"x": 7, "z": 8}})
    with pytest.raises(InvalidInputError, match="args"):
        shop.jobs.submit("shop.add", {"args": [1, 2, 3]})
    wrong = shop.jobs.submit("shop.add", {"args": [1]})  # only the task itself knows that an argument is missing
    right = shop.jobs.submit("shop.add", {"args": [5], "kwargs": {"y": 6}})
    failed = shop.ended(wrong.job_id)
    assert failed.failure is not None
    assert (failed.status, failed.failure.kind) == ("failed", "bad_parameters")
    assert "missing 1 required positional argument" in (failed.error or "")
    assert shop.ended(right.job_id).result == 11


def test_rejected_message_fails_its_job(shop: Shop) -> None:
    """A task that rejected its message permanently was sent again from the record, in an endless loop."""
    shop.work()
    job = shop.ended(shop.gives_back.delay().id)
    assert job.status == "failed"
    assert "not for me" in (job.error or "")
    assert shop.ran == [("gives_back",)]


def test_forwarded_headers_do_not_name_parent_job(shop: Shop) -> None:
    """A message that carried the headers of another task's message was taken for that task's job and never ran."""
    shop.work()
    first = shop.add.delay(1, 2)
    assert first.get(timeout=PATIENCE) == 3
    second = shop.add.apply_async((3, 4), headers={"milepost": first.id})
    assert second.get(timeout=PATIENCE) == 7
    assert shop.ended(second.id).result == 7


@pytest.mark.parametrize("moment", [datetime(2026, 1, 2)], ids=["datetime"])
def test_resent_message_keeps_its_arguments(shop: Shop, moment: datetime) -> None:
    """The message that was sent again had texts in place of dates, so the task failed or did something else."""
    result = shop.add.delay(moment, 1)
    job = shop.jobs.get_job(result.id)
    assert job is not None
    with shop.app.connection_for_write() as connection:
        connection.default_channel.queue_purge("celery")
    dispatcher = shop.jobs.dispatcher
    assert dispatcher is not None
    dispatcher.task_queue.send(job)
    shop.work()
    until(lambda: shop.ran)
    assert shop.ran[0][0] == moment


@pytest.fixture
def _short_lease(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MILEPOST_LEASE", "0.5")
    monkeypatch.setenv("MILEPOST_HEARTBEAT", "0.05")
    settings.settings.reload()
    yield
    settings.settings.reload()


@pytest.mark.timing
@pytest.mark.usefixtures("_short_lease")
@pytest.mark.parametrize("is_taken", [False, True], ids=["waiting", "taken"])
def test_task_reacquires_expired_lease_unless_taken(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    """A task that could not renew its lease was stopped and done again, though no other run had its job."""
    away = StoreOutage(shop.jobs, monkeypatch, "heartbeat")
    result = shop.waits.delay()
    shop.work()
    until(lambda: shop.ran)
    away.is_set = True
    core = shop.jobs._async
    store = core.store.with_blocking(blocking=True)
    sweeper = Sweeper(store, core.settings, core.ttl)

    def is_pending() -> bool:
        run_sync(sweeper.sweep())
        job = shop.jobs.get_job(result.id)
        return job is not None and job.status == "pending"

    until(is_pending)
    if is_taken:
        other = plan_deliver("other", nonce="other", lease=60_000_000, worker="another")
        assert run_sync(store.apply([Write(result.id, other)])).outcomes[0].accepted
    away.is_set = False
    if is_taken:
        until(lambda: ("stopped",) in shop.ran)
        job = shop.jobs.get_job(result.id)
        assert job is not None
        assert (job.status, job.worker) == ("running", "another")
    else:
        until(lambda: not is_pending())
        shop.gate.set()
        assert result.get(timeout=PATIENCE) == "opened"
        job = shop.ended(result.id)
        assert (job.status, job.result, job.attempt) == ("completed", "opened", 1)
        assert shop.ran == [("waits",)]
