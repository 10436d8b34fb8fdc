"""Dispatch of jobs to an external task queue: first the record, then the message.

A thread records which messages were sent, and dispatches jobs that were left over.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from milepost.core.errors import InvalidInputError, MilepostError, StoreError
from milepost.core.job import FailureKind, Job, JobStatus
from milepost.core.placement import starts_at
from milepost.core.serialization import ERROR_BYTES, single_line
from milepost.core.transitions import plan_dispatched, plan_rejected, plan_undispatchable
from milepost.forks import Instances
from milepost.run.crash_report import report_lost_run
from milepost.run.heartbeat import Outage
from milepost.run.process_identity import process_name
from milepost.run.sweeper import REDISPATCH_DELAY, Sweeper
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import run_sync
from milepost.worker.handlers import Application, code_release
from milepost.worker.registry import REGISTRATION_INTERVAL, JobType, WorkerRegistration, published_type, remove_worker

log = logging.getLogger("milepost.task_queue")
log.addHandler(logging.NullHandler())

LOST_AFTER = 3600.0
"""The default of `TaskQueue.lost_after`, in seconds."""
REJECTED_RETRY_MICROS = 60_000_000
"""Microseconds after which a message that the task queue rejected, for another reason than an outage, is sent again."""
SLOW_FAILURE_SECONDS, UNAVAILABLE_SECONDS = 0.5, 5.0
"""After an attempt that failed only after the first time, submits do not try again before the second (seconds)."""
RECORD_INTERVAL = 0.2
"""Seconds for which sent messages are collected before they are recorded.

A job whose record is lost with its process gets a second message, which does not run it again.
"""


class TaskQueueUnavailableError(MilepostError):
    """The task queue did not accept a message: its broker cannot be reached or refuses it."""


class TaskQueue(Protocol):
    """A task queue that runs jobs for an application, as in ``Jobs(url, task_queue=CeleryTaskQueue(app))``.

    Its messages only name a job; what to do is in the record. So a message may arrive twice, late or never: the second
    one finds a live lease or an ended job, and a lost one is sent again. Processes of the task queue are listed as
    workers if they call `Dispatcher.register_worker`.
    """

    name: str
    """Its name in the records; the processes of one task queue share it."""

    lost_after: float
    """Seconds without a start after which a message counts as lost and the job is dispatched again."""

    def serve(self, app: Application, dispatcher: Dispatcher) -> None:
        """Set up the processing of messages for an application. Called once, by the application."""

    def send(self, job: Job) -> None:
        """Send the message of a pending job.

        Raises TaskQueueUnavailableError, and InvalidInputError for parameters that it can never accept; the job then
        fails.
        """

    def requeue(self, job_id: str, job_type: str, delay: float) -> None:
        """Send the message of a job again because its delivery did not reach the store, `delay` seconds later if
        possible.

        Raises TaskQueueUnavailableError.
        """

    def stop(self, message: Any, *, hard: bool) -> str | None:
        """End the code of a message that ignored its stop. Called inside its process.

        `hard` if it ignored this as well. Return the name of the method for the receipt, or None if there is none: then
        the code ends by itself. Raises TaskQueueUnavailableError: then it is called again.
        """

    def is_exit(self, error: BaseException) -> bool:
        """Return whether an exception is the task queue's way of ending the code or its worker."""

    def close(self) -> None:
        """Release what it opened itself, because the application closes."""


class Dispatcher:
    """Dispatches the jobs of one application to its task queue: new ones at once, leftover ones from a thread."""

    def __init__(self, app: Application, task_queue: TaskQueue) -> None:
        if not app.store.shared:
            problem = "a store in memory cannot be read by the workers; set MILEPOST_URL, or the URL of Jobs, to sqlite:///FILE or redis://HOST"
            raise InvalidInputError("task_queue", problem)
        self.app = app
        self._monotonic = app.runtime.clock.monotonic
        self.task_queue = task_queue
        self._lock = threading.Lock()
        self._pid = 0
        self._end = threading.Event()
        self._sent = threading.Event()
        self._unrecorded: list[Write] = []
        self._thread: threading.Thread | None = None
        self._registration: WorkerRegistration | None = None
        self._worker = ""
        self._unavailable_until = 0.0
        self._unavailable_reason = ""
        _dispatchers.add(self)
        task_queue.serve(app, self)

    # --- new jobs ---

    async def dispatch(self, store: Store, jobs: Sequence[Job]) -> None:
        """Dispatch new jobs that may start. A thread records in batches that this was done.

        If the task queue cannot be reached, the submit does not fail: the record says so, and the thread tries again.
        """
        self.start()
        # A submit may also return a job that waits for its next attempt, or sleeps: the sweeper dispatches it in time.
        ready = [job for job in jobs if job.status is JobStatus.PENDING and starts_at(job.record) == 0]
        undispatchable = self._send_all(ready) if store.blocking else await asyncio.to_thread(self._send_all, ready)
        if undispatchable:
            await store.apply(undispatchable)

    def _send_all(self, jobs: Sequence[Job]) -> list[Write]:
        """Send the messages, and return the writes for those that could not be sent."""
        notes, undispatchable = [], []
        for job in jobs:
            try:
                self._send(job)
            except TaskQueueUnavailableError as error:
                log.warning(
                    "job %s (%s): not dispatched to %s yet: %s", job.job_id, job.job_type, self.task_queue.name, error
                )
                reason = f"{self.task_queue.name} cannot be reached: {error}"
                plan = plan_undispatchable(new_operation_id(), REDISPATCH_DELAY, reason)
            except InvalidInputError as error:
                log.warning("job %s (%s): rejected by %s: %s", job.job_id, job.job_type, self.task_queue.name, error)
                failure = report_lost_run(job, FailureKind.BAD_PARAMETERS, str(error), type="InvalidInputError")
                plan = plan_rejected(new_operation_id(), error=single_line(error, ERROR_BYTES), failure=failure)
            except Exception as error:
                # A message that cannot be sent must not block those of other jobs.
                log.exception("job %s (%s): message rejected by %s", job.job_id, job.job_type, self.task_queue.name)
                reason = single_line(
                    f"{self.task_queue.name} rejected its message: {type(error).__name__}: {error}", ERROR_BYTES
                )
                plan = plan_undispatchable(new_operation_id(), REJECTED_RETRY_MICROS, reason)
            else:
                lost_after, known = int(self.task_queue.lost_after * 1_000_000), job.record.get("update_ops", "")
                plan = plan_dispatched(new_operation_id(), lost_after, job.version, known)
                notes.append(Write(job.job_id, plan, answer=False))
                continue
            undispatchable.append(Write(job.job_id, plan, answer=False))
        if notes:
            with self._lock:
                self._unrecorded += notes
            if self._thread is None:
                try:
                    self.record_dispatched()
                except StoreError as error:  # the jobs are recorded and sent, so the submit succeeds
                    log.warning("could not record %d dispatched messages yet: %s", len(notes), error)
            else:
                self._sent.set()
        return undispatchable

    def _send(self, job: Job) -> None:
        """Send one message. After a slow failure the next ones fail at once, to save their timeouts."""
        began = self._monotonic()
        if began < self._unavailable_until:
            raise TaskQueueUnavailableError(self._unavailable_reason)
        try:
            self.task_queue.send(job)
        except TaskQueueUnavailableError as error:
            if self._monotonic() - began > SLOW_FAILURE_SECONDS:
                self._unavailable_reason = str(error)
                self._unavailable_until = self._monotonic() + UNAVAILABLE_SECONDS
            raise

    @property
    def has_unrecorded(self) -> bool:
        """Return whether messages were sent that the records do not show yet."""
        return bool(self._unrecorded)

    def record_dispatched(self) -> None:
        """Record which messages were sent. Raises StoreError; then they are kept for the next call."""
        with self._lock:
            notes, self._unrecorded = self._unrecorded, []
        try:
            if notes:
                run_sync(self._blocking().apply(notes))
        except StoreError:
            with self._lock:
                self._unrecorded = notes + self._unrecorded
            raise

    # --- leftover jobs ---

    def start(self) -> None:
        """Start the thread that dispatches leftover jobs, in this process; again after a fork."""
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._end, self._registration = os.getpid(), threading.Event(), None
                self._sent, self._unrecorded = threading.Event(), []
                self._thread = threading.Thread(target=self._run, name=f"milepost-{self.task_queue.name}", daemon=True)
                self._thread.start()

    def register_worker(
        self, concurrency: int, more: Sequence[JobType] = (), running: Callable[[], tuple[str, ...]] | None = None,
        beside: Sequence[Application] = (),
    ) -> None:  # fmt: skip
        """List this process as a worker, with its types and those whose code only the task queue has (`more`).

        `running` returns the ids of its running jobs (default: those that run in this process). `beside` are other
        applications of the same store whose jobs it runs.
        """
        self.start()
        apps = (*beside, self.app)
        handlers = {handler.job_type: handler for app in apps for handler in app.handlers.values()}
        types = [*(published_type(handler, self.task_queue.name) for handler in handlers.values()), *more]
        self._worker = process_name()
        own = running or (lambda: self.app.runtime.heartbeat.job_ids)
        self._registration = WorkerRegistration(
            self._blocking(), self._worker, types, concurrency, lambda: (own(), False),
            schedules=[schedule for app in apps for schedule in app.handlers.schedules.values()],
            release=code_release(self.app.settings, self.app.handlers),
        )  # fmt: skip

    def disable_thread(self) -> None:
        """Leave dispatch to other processes, because this one runs the code of a job."""
        if self._pid != os.getpid():  # discard the state of the parent process
            self._lock = threading.Lock()
            self._pid, self._thread, self._unrecorded = os.getpid(), None, []

    def end(self) -> None:
        """End the thread after it has recorded the last messages."""
        with self._lock:
            thread, self._thread = (self._thread if self._pid == os.getpid() else None), None
            self._pid = 0
            self._end.set()
            self._sent.set()
        if thread is not None:
            thread.join(5.0)

    def close(self) -> None:
        """End the thread and close the task queue, because the application closes."""
        self.end()
        self.task_queue.close()

    def _blocking(self) -> Store:
        return self.app.store.with_blocking(blocking=True)

    def _run(self) -> None:
        store, end, sent, settings = self._blocking(), self._end, self._sent, self.app.settings
        sweeper = Sweeper(
            store,
            settings,
            self.app.runtime.ttl,
            self.task_queue.name,
            clock=self.app.runtime.clock,
            ids=self.app.runtime.ids,
        )
        next_sweep = next_beat = 0.0
        outage = Outage(log, "jobs wait for dispatch")
        while not end.is_set():
            now = self._monotonic()
            try:
                self.record_dispatched()
                if self._registration is not None and now >= next_beat:
                    next_beat = now + REGISTRATION_INTERVAL
                    run_sync(self._registration.renew())
                if now >= next_sweep:
                    next_sweep = now + settings.sweep_interval
                    asks = sweeper.is_due
                    run_sync(sweeper.tick())
                    if asks:
                        outage.answered()
                    if sweeper.is_behind:
                        next_sweep = now
                    self._unavailable_until = 0.0  # each round tries the task queue again
                    undispatchable = self._send_all(sweeper.take_due())
                    if undispatchable:
                        run_sync(store.apply(undispatchable))
            except StoreError as error:
                outage.failed(error)
            except Exception:
                # A defect here must not block all jobs of the task queue.
                log.exception("unexpected error in the dispatch to %s; continuing", self.task_queue.name)
            due = min(next_sweep, next_beat if self._registration is not None else next_sweep)
            if sent.wait(max(0.05, due - self._monotonic())):
                sent.clear()
                end.wait(RECORD_INTERVAL)
        try:
            self.record_dispatched()
            if self._registration is not None:
                run_sync(remove_worker(store, self._worker))
        except StoreError as error:
            log.warning("%s: worker not unregistered: %s", self.task_queue.name, error)


_dispatchers: Instances[Dispatcher] = Instances()


@atexit.register
def _record_at_exit() -> None:
    """Record the last messages of a process."""
    for dispatcher in _dispatchers:
        if dispatcher.has_unrecorded:
            dispatcher.end()
