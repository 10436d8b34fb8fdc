"""`CeleryTaskQueue(app)`: messages, revokes and worker events of a Celery application."""

from __future__ import annotations

import logging
import signal
import threading
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import celery
from billiard import current_process
from celery import signals
from celery.exceptions import Ignore, WorkerShutdown, WorkerTerminate
from kombu.exceptions import OperationalError

from milepost.core.errors import JobCancelled, JobReleased, JobTimedOut, LeaseLost, StoreError
from milepost.core.job import Job, JobStatus
from milepost.core.serialization import seconds
from milepost.integrations.celery.abandoned_tasks import AbandonedTasks
from milepost.integrations.celery.message import job_id_of_request
from milepost.integrations.celery.redelivery import postpone
from milepost.integrations.dead_process_watch import record_drop
from milepost.worker.dispatcher import LOST_AFTER, Dispatcher, TaskQueueUnavailableError
from milepost.worker.handlers import Application
from milepost.worker.message_delivery import deliver
from milepost.worker.message_execution import NotDelivered

if TYPE_CHECKING:
    from milepost.integrations.celery.tracked import Tracked

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

        def run(task: Any, job_id: str, job_type: str) -> None:
            self.run_delivery(task, lambda message: deliver(app, self, job_id, job_type, message))

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
        task = self.tracked.get(job.job_type)
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
        except (JobReleased, LeaseLost):
            raise Ignore from None
        except JobTimedOut as error:
            raise TimeoutError(str(error)) from None
        except StoreError as error:
            # Not a retry: no code has started, and retries belong to the task.
            log.warning("task %s[%s]: store unavailable, retrying later: %s", task.name, request.id, error)
            postpone(task, STORE_RETRY_DELAY)

    def _is_tracked(self, name: str) -> bool:
        return any(name == known.task.name for known in self.tracked.values())

    def _on_ready(self, sender: Any, **_: Any) -> None:
        if sender.app is self.app:
            types = [task.type for task in self.tracked.values()]
            self.dispatcher.register_worker(int(sender.controller.concurrency or 1), types)

    def _on_shutdown(self, **_: Any) -> None:
        self.dispatcher.end()

    def _on_revoked(
        self, request: Any, terminated: bool = False, signum: Any = None, expired: bool = False, **_: Any
    ) -> None:
        """Record that a worker dropped a task or killed its process, at our request or by a Celery revoke."""
        if request.task == RUN_TASK:
            job_id = request.args[0]
        elif self._is_tracked(request.task):
            job_id = job_id_of_request(request)
        else:
            return
        how = _stop_method(signal.Signals(int(signum))) if terminated else None
        why = "expired in Celery" if expired else "revoked in Celery"
        store = self.jobs.store.with_blocking(blocking=True)
        threading.Thread(target=record_drop, args=(store, job_id, self.name, why, how), daemon=True).start()


def _stop_method(number: signal.Signals) -> str:
    return f"terminated (Celery revoke, {number.name})"


def show_revoked(task: Any) -> None:
    """Mark the Celery result as revoked, so that no caller waits for it."""
    if not task.ignore_result:
        task.backend.mark_as_revoked(task.request.id, "cancelled", request=task.request)
