"""`CeleryTaskQueue(app)`: messages, revokes and worker events of a Celery application.

`AbandonedTasks` are tasks that Celery fails from its main process, after a hard time limit or the death of a pool process.
The report may come more than ten seconds after the death; until then the main process renews the lease of the run. The
job must not start another attempt, because Celery has reported its task as failed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, WeakValueDictionary

import celery
from billiard import current_process
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals
from celery.exceptions import Ignore, WorkerShutdown, WorkerTerminate
from kombu.exceptions import OperationalError

from milepost.core.errors import JobCancelled, JobTimedOut, RunStop, StoreError
from milepost.core.job import FailureKind, Job, JobStatus
from milepost.core.serialization import seconds
from milepost.integrations.celery.message import HEADER, job_id_of_request, job_id_of_task, postpone
from milepost.integrations.dead_process_watch import record_drop, record_failure
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import run_sync
from milepost.worker.dispatcher import LOST_AFTER, Dispatcher, TaskQueueUnavailableError
from milepost.worker.handlers import Application
from milepost.worker.message_delivery import deliver
from milepost.worker.message_execution import NotDelivered

if TYPE_CHECKING:
    from milepost.integrations.celery.tracked import Tracked


REPORT_SECONDS = 20.0
"""Time limit for Celery's report of a dead pool process: billiard checks every 5 s and waits 10 s for a last result."""


class AbandonedTasks:
    """Fails the jobs of tasks that a prefork worker has failed. `is_ours` returns whether a task name is tracked.

    `lease` is the lease of the runs, in seconds.
    """

    def __init__(self, is_ours: Callable[[str], bool], store: Callable[[], Store], lease: float) -> None:
        self._is_ours = is_ours
        self._store = store
        self._lease = lease
        self._thread: threading.Thread | None = None
        self._requests: WeakValueDictionary[str, Any] = WeakValueDictionary()
        signals.task_received.connect(self._on_received, weak=False)
        signals.task_failure.connect(self._on_failure, weak=False)

    def _on_received(self, request: Any, **_: Any) -> None:
        if self._is_ours(request.request_dict["task"]):
            self._requests[request.id] = request
            # A longer lease outlasts the wait by itself, because it is renewed every third of its length.
            if self._thread is None and self._lease * 2 / 3 < REPORT_SECONDS and hasattr(os, "waitid"):
                self._thread = threading.Thread(target=self._keep_leases, name="milepost-abandoned-tasks", daemon=True)
                self._thread.start()

    def _keep_leases(self) -> None:
        """Renew the leases of runs whose process died, until Celery reports the outcome of their tasks."""
        died: dict[str, float] = {}
        while True:
            threading.Event().wait(self._lease / 6)
            now = time.monotonic()
            received = [request() for request in self._requests.valuerefs()]  # `items` fails when a thread adds a task
            waiting = {request.id: request for request in received if request and _awaits_report(request)}
            died = {task_id: died.get(task_id, now) for task_id in waiting}
            try:
                for task_id, request in waiting.items():
                    if now - died[task_id] < REPORT_SECONDS:
                        self._renew(_job_id(request), request.worker_pid)
            except StoreError as error:
                log.debug("failed to renew leases of dead processes: %s", error)

    def _renew(self, job_id: str, pid: int) -> None:
        store = self._store()
        job = run_sync(store.get(job_id))
        if job is not None and job.status is JobStatus.RUNNING and f":{pid}:" in (job.worker or ""):
            run_sync(store.renew([(job_id, job.record["token"])], int(self._lease * 1_000_000)))

    def _on_failure(self, sender: Any, task_id: str, exception: BaseException, **_: Any) -> None:
        timed_out = isinstance(exception, TimeLimitExceeded)
        if not timed_out and not isinstance(exception, WorkerLostError):
            return
        request = self._requests.pop(task_id, None)
        if request is None or not request.worker_pid or (timed_out and _is_redelivered_on_loss(sender)):
            return
        kind = FailureKind.TIMEOUT if timed_out else FailureKind.KILLED
        text = f"hard time limit of {exception.args[0]} s exceeded" if timed_out else str(exception)
        known = (self._store(), _job_id(request), request.worker_pid, kind, text, type(exception).__name__)
        threading.Thread(target=record_failure, args=known, daemon=True).start()


def _job_id(request: Any) -> str:
    headers = request.request_dict
    return str(headers.get(HEADER) or job_id_of_task(request.id, int(headers.get("replaced_task_nesting") or 0)))


def _awaits_report(request: Any) -> bool:
    """Return whether the pool process of a task is dead and Celery has not reported the outcome."""
    pid = request.worker_pid
    if not pid or pid == os.getpid() or (request.task.acks_late and request.acknowledged):
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # the pool has already reaped it
        return True


def _is_redelivered_on_loss(task: Any) -> bool:
    """Return whether Celery returns the message of a timed-out task to the broker."""
    acknowledged = getattr(task, "acks_on_timeout", None)
    if acknowledged is None:
        acknowledged = task.acks_on_failure_or_timeout
    return bool(task.acks_late and not acknowledged)


log = logging.getLogger("milepost.task_queue")

RUN_TASK = "milepost.run"
STORE_RETRY_DELAY = 10.0


class Message(NamedTuple):
    """A running message: its task id, its worker, and whether it runs in a child process."""

    task_id: str
    hostname: str
    in_child: bool


class CeleryTaskQueue:
    """Runs jobs on the workers of a Celery application: ``jobs = Jobs(url, task_queue=CeleryTaskQueue(app))``.

    `queue`: the queue of their messages (default: where Celery routes the task ``milepost.run``). `lost_after`: when a
    message without a start counts as lost (default one hour). Requires the extra `celery`.
    """

    def __init__(
        self,
        app: celery.Celery,
        *,
        queue: str | None = None,
        name: str = "celery",
        lost_after: float | timedelta | str = LOST_AFTER,
    ) -> None:
        self.name = name
        self.lost_after = seconds(lost_after, "lost_after")
        self.app = app
        self._route = {} if queue is None else {"queue": queue}
        self.tracked: dict[str, Tracked] = {}
        """Tasks with `@tracked`, by job type."""

    def serve(self, app: Application, dispatcher: Dispatcher) -> None:
        """Register the task and the signals of workers in this process."""
        self.jobs = app
        self.dispatcher = dispatcher
        beside = _task_queues.setdefault(self.app, [])
        beside.append(self)

        def run(task: Any, job_id: str, job_type: str) -> None:
            # Celery knows one task of this name, which the first task queue has registered for all.
            serving = next((one for one in beside if job_type in one.jobs.handlers), self)
            serving.run_delivery(task, lambda message: deliver(serving.jobs, serving, job_id, job_type, message))

        self.app.task(run, name=RUN_TASK, bind=True, ignore_result=True, acks_late=False, shared=False)
        # Signals hold their receivers weakly by default; this object lives as long as its application.
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_shutdown.connect(self._on_shutdown, weak=False)
        signals.task_revoked.connect(self._on_revoked, weak=False)
        self._abandoned_tasks = AbandonedTasks(
            self._is_tracked, lambda: app.store.with_blocking(blocking=True), app.settings.lease
        )

    def send(self, job: Job) -> None:
        """Send the message. Raises TaskQueueUnavailableError."""
        task = self._tracked_task(job.job_type)
        try:
            if task is not None:
                task.send(job)
            else:
                self._send(job.job_id, job.job_type)
        except (OperationalError, OSError) as error:
            raise TaskQueueUnavailableError(str(error)) from error

    def requeue(self, job_id: str, job_type: str, delay: float) -> None:
        """Send the message again after `delay` seconds. Raises TaskQueueUnavailableError."""
        try:
            self._send(job_id, job_type, countdown=delay)
        except (OperationalError, OSError) as error:
            raise TaskQueueUnavailableError(str(error)) from error

    def _tracked_task(self, job_type: str) -> Tracked | None:
        """Return the task with `@tracked` of a type, also one of another Jobs of the application and the same store."""
        found = self.tracked.get(job_type)
        for one in _task_queues.get(self.app, []):
            if found is None and _store_of(one) == _store_of(self):
                found = one.tracked.get(job_type)
        return found

    def _send(self, job_id: str, job_type: str, **when: float) -> None:
        self.app.send_task(RUN_TASK, (job_id, job_type), ignore_result=True, retry=False, **self._route, **when)

    def stop(self, message: Message, *, hard: bool) -> str | None:
        """Revoke with terminate: SIGTERM, then SIGKILL, to the worker's child process. Other pools cannot stop code."""
        if not message.in_child:
            return None
        number = signal.SIGKILL if hard else signal.SIGTERM
        try:
            self.app.control.revoke(message.task_id, terminate=True, signal=number.name, destination=[message.hostname])
        except (OperationalError, OSError) as error:
            raise TaskQueueUnavailableError(str(error)) from error
        return _stop_method(number)

    def is_exit(self, error: BaseException) -> bool:
        """Return whether a worker's shutdown or a signal raised the error; code may raise SystemExit too."""
        if isinstance(error, WorkerShutdown | WorkerTerminate):
            return True
        frames = traceback.extract_tb(error.__traceback__)
        return isinstance(error, SystemExit) and bool(frames) and "billiard" in Path(frames[-1].filename).parts

    def close(self) -> None:
        """Do nothing: the connections belong to the application."""

    # --- in a worker ---

    def run_delivery(self, task: Any, run: Callable[[Message], Any]) -> Any:
        """Run a delivery and return its result, or raise the exception that tells Celery its outcome."""
        self.dispatcher.disable_thread()
        request = task.request
        message = Message(request.id, request.hostname or "", bool(current_process().daemon))
        try:
            return run(message)
        except NotDelivered as refused:
            if refused.job is not None and refused.job.status is JobStatus.CANCELLED:
                show_revoked(task)
            raise Ignore from None
        except JobCancelled:
            show_revoked(task)
            raise Ignore from None
        except JobTimedOut as error:
            raise TimeoutError(str(error)) from None
        except RunStop:  # released, suspended, or another run has the job
            raise Ignore from None
        except StoreError as error:
            # Not a retry: no code has started, and retries belong to the task.
            log.warning("task %s[%s]: store unavailable, retrying later: %s", task.name, request.id, error)
            postpone(task, STORE_RETRY_DELAY)

    def _is_tracked(self, name: str) -> bool:
        return any(name == known.task.name for known in self.tracked.values())

    def _on_ready(self, sender: Any, **_: Any) -> None:
        if sender.app is not self.app:
            return
        # One registration for all of the same store: each would replace the types of the others.
        first, *others = [one for one in _task_queues[self.app] if _store_of(one) == _store_of(self)]
        if self is not first:
            self.dispatcher.start()
            return
        types = [task.type for one in (first, *others) for task in one.tracked.values()]
        self.dispatcher.register_worker(
            int(sender.controller.concurrency or 1),
            types,
            lambda: tuple(dict.fromkeys(job_id for one in (first, *others) for job_id in one._running_jobs())),
            [one.jobs for one in others],
        )

    def _on_shutdown(self, **_: Any) -> None:
        self.dispatcher.end()

    def _running_jobs(self) -> tuple[str, ...]:
        """Return the jobs that this worker runs, in its own process or in those of its pool."""
        from celery.worker import state  # which senders do not need

        while True:
            try:
                requests = tuple(state.active_requests)
                break
            except RuntimeError:  # the worker has changed it in the meantime
                continue
        found = (self._job_id(request._context) for request in requests)
        return tuple(job_id for job_id in found if job_id is not None)

    def _job_id(self, request: Any) -> str | None:
        """Return the job id of a message in a worker, or None if it is no message of this task queue."""
        if request.task == RUN_TASK:
            return str(request.args[0])
        return job_id_of_request(request) if self._is_tracked(request.task) else None

    def _on_revoked(
        self, request: Any, terminated: bool = False, signum: Any = None, expired: bool = False, **_: Any
    ) -> None:
        """Record that a worker dropped a task or killed its process, at our request or by a Celery revoke."""
        job_id = self._job_id(request)
        if job_id is None:
            return
        how = _stop_method(signal.Signals(int(signum))) if terminated else None
        why = "expired in Celery" if expired else "revoked in Celery"
        store = self.jobs.store.with_blocking(blocking=True)
        threading.Thread(target=record_drop, args=(store, job_id, self.name, why, how), daemon=True).start()


_task_queues: WeakKeyDictionary[celery.Celery, list[CeleryTaskQueue]] = WeakKeyDictionary()
"""The task queues of each application: those of its Jobs, and one for its tasks with `@tracked` that name no Jobs."""


def _store_of(task_queue: CeleryTaskQueue) -> tuple[str, str]:
    """Return what identifies the store of a task queue."""
    return task_queue.jobs.store.url, task_queue.jobs.settings.namespace


def _stop_method(number: signal.Signals) -> str:
    return f"terminated (Celery revoke, {number.name})"


def show_revoked(task: Any) -> None:
    """Mark the Celery result as revoked, so that no caller waits for it."""
    if not task.ignore_result:
        task.backend.mark_as_revoked(task.request.id, "cancelled", request=task.request)
