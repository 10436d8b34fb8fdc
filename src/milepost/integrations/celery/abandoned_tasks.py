"""Tasks that Celery fails from its main process, after a hard time limit or the death of a pool process.

Celery has reported such a task as failed, so that its job must not start another attempt. The report may come more than
ten seconds after the death; until then the main process renews the lease of the run.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals

from milepost.core.errors import StoreError
from milepost.core.job import FailureKind, JobStatus
from milepost.integrations.celery.message import HEADER, job_id_of_task
from milepost.integrations.dead_process_watch import record_failure
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import run_sync

log = logging.getLogger("milepost.task_queue")

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
            waiting = {task_id: request for task_id, request in list(self._requests.items()) if _awaits_report(request)}
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
