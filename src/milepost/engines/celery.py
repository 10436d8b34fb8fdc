"""Celery: `CeleryEngine(app)` runs submitted jobs on its workers; `@tracked` gives a task that exists already a record.

Owns what Celery is told of a job and what it tells of one: messages, revokes, retries, workers that live. What a message
may do when it arrives is the seam's. A message of a submitted job is acknowledged when it arrives, so no broker sends it
again while it runs; a tracked task keeps its own settings, and the lease lets the second of two deliveries pass by.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from milepost.core.encoding import seconds
from milepost.core.errors import JobCancelled, JobReleased, JobTimedOut, LeaseLost, MissingExtra, StoreError
from milepost.core.job import Job, JobStatus
from milepost.engines.watching import dropped
from milepost.worker.delivery import NotDelivered, deliver
from milepost.worker.engine import LOST_AFTER, EngineApp, EngineUnavailable, Handing

try:
    import celery
    from billiard import current_process
    from celery import signals
    from celery.exceptions import Ignore
    from kombu.exceptions import OperationalError
except ImportError as missing:
    raise MissingExtra("celery", "milepost.engines.celery") from missing

log = logging.getLogger("milepost.engine")

RUN_TASK = "milepost.run"
STORE_AWAY_SECONDS = 10.0


class Message(NamedTuple):
    """What a stop needs of a message that is being run: its id, the worker that runs it, and whether in a child of it."""

    task_id: str
    hostname: str
    in_child: bool


class CeleryEngine:
    """Runs jobs on the workers of a Celery application: ``jobs = Jobs(url, engine=CeleryEngine(app))``.

    `queue`: the queue of their messages (default: where Celery routes the task ``milepost.run``). `lost_after`: when a
    message without a start counts as lost (default one hour). Needs the extra `celery`.
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
        self.tracked: dict[str, Callable[[Job], None]] = {}
        """Tasks under `@tracked`, by job type: how each sends its own message."""
        self.tracked_ids: dict[str, Callable[[str], str]] = {}
        """The same, by task name: the job of a task id."""

    def serve(self, app: EngineApp, handing: Handing) -> None:
        """Make the task, and listen to the workers of this process."""
        self.jobs = app
        self.handing = handing

        def run(task: Any, job_id: str, job_type: str) -> None:
            self.told(task, lambda message: deliver(app, self, job_id, job_type, message))

        self.app.task(run, name=RUN_TASK, bind=True, ignore_result=True, acks_late=False, shared=False)
        # Signals keep their receivers weakly; this engine lives as long as its application.
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_shutdown.connect(self._on_shutdown, weak=False)
        signals.task_revoked.connect(self._on_revoked, weak=False)

    def hand_over(self, job: Job) -> None:
        """Send the message. Raises EngineUnavailable."""
        send = self.tracked.get(job.job_type)
        try:
            if send is not None:
                send(job)
            else:
                arguments = (job.job_id, job.job_type)
                self.app.send_task(RUN_TASK, arguments, ignore_result=True, retry=False, **self._route)
        except (OperationalError, OSError) as error:
            raise EngineUnavailable(str(error)) from error

    def stop(self, message: Message, *, hard: bool) -> bool:
        """Revoke with terminate: SIGTERM, then SIGKILL, to the child process of the worker; other pools have no means."""
        if not message.in_child:
            return False
        number = "SIGKILL" if hard else "SIGTERM"
        self.app.control.revoke(message.task_id, terminate=True, signal=number, destination=[message.hostname])
        return True

    # --- in a worker ---

    def told(self, task: Any, run: Callable[[Message], Any]) -> Any:
        """Run a delivery, and say in Celery's words how it went: a result, an exception, or nothing at all."""
        self.handing.rest()
        request = task.request
        message = Message(request.id, request.hostname or "", bool(current_process().daemon))
        try:
            return run(message)
        except NotDelivered as refused:
            if refused.job is not None and refused.job.status is JobStatus.CANCELLED:
                _show_revoked(task)
            raise Ignore from None
        except JobCancelled:
            _show_revoked(task)
            raise Ignore from None
        except (JobReleased, LeaseLost):
            raise Ignore from None
        except JobTimedOut as error:
            raise TimeoutError(str(error)) from None
        except StoreError as error:
            # Nothing has begun: the message comes again, which is no attempt of the job.
            raise task.retry(exc=error, countdown=STORE_AWAY_SECONDS, max_retries=None) from error

    def _on_ready(self, sender: Any, **_: Any) -> None:
        if sender.app is self.app:
            self.handing.at_work(int(sender.controller.concurrency or 1))

    def _on_shutdown(self, **_: Any) -> None:
        self.handing.close()

    def _on_revoked(
        self, request: Any, terminated: bool = False, signum: Any = None, expired: bool = False, **_: Any
    ) -> None:
        """A worker has dropped a task, or killed what ran it: because we asked, or somebody who asked Celery."""
        name = request.task
        if name == RUN_TASK:
            job_id = request.args[0]
        elif name in self.tracked_ids:
            job_id = self.tracked_ids[name](request.id)
        else:
            return
        how = f"terminated (Celery revoke, {getattr(signum, 'name', signum)})" if terminated else None
        why = "expired in Celery" if expired else "revoked in Celery"
        store = self.jobs.store.twin(blocking=True)
        threading.Thread(target=dropped, args=(store, job_id, self.name, why, how), daemon=True).start()


def _show_revoked(task: Any) -> None:
    """Let those who wait for Celery's own result hear that none will come."""
    if not task.ignore_result:
        task.backend.mark_as_revoked(task.request.id, "cancelled", request=task.request)


__all__ = ["CeleryEngine"]
