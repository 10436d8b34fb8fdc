"""Records what a task queue's parent process observes: a dropped message, or the death of a child process."""

from __future__ import annotations

import logging
import os
import select
import threading
import time

from milepost.core.errors import StoreError
from milepost.core.job import FailureKind, Job, JobStatus
from milepost.core.serialization import ERROR_BYTES, single_line
from milepost.core.transitions import plan_cancel, plan_fail, plan_receipt
from milepost.run.crash_report import report_lost_run
from milepost.run.process_identity import is_known_dead
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import run_sync

log = logging.getLogger("milepost.task_queue")

POLL_INTERVAL = 0.1
DEATH_TIMEOUT = 30.0


def record_drop(store: Store, job_id: str, by: str, why: str, how: str | None) -> None:
    """Cancel the job of a message that the task queue dropped, or whose process it killed (`how`).

    After a kill, wait until the process is dead and confirm the receipt. Blocks; call it in a thread.
    """
    try:
        job = run_sync(store.get(job_id))
        if job is None:
            return
        if not _is_being_stopped(job):
            if job.status is not (JobStatus.PENDING if how is None else JobStatus.RUNNING):
                return  # a duplicate message, or the killed run has already ended
            outcome = run_sync(store.apply([Write(job_id, plan_cancel(new_operation_id(), by=by, why=why))])).outcomes[
                0
            ]
            if not outcome.accepted or outcome.job is None:
                return
            job = outcome.job
        token = job.record.get("stop_token")
        if how is not None and token and job.worker and wait_for_death(job.worker):
            run_sync(
                store.apply([Write(job_id, plan_receipt(new_operation_id(), token, how, confirmed=True), answer=False)])
            )
    except StoreError as error:
        log.warning("job %s: failed to record its end in %s: %s", job_id, by, error)


def record_failure(store: Store, job_id: str, pid: int, kind: FailureKind, text: str, type_name: str) -> None:
    """Fail the job that a local process ran when the task queue failed it. No attempt follows.

    Waits for the process to die. Blocks; call it in a thread.
    """
    try:
        job = run_sync(store.get(job_id))
        if job is None or job.worker is None or job.status is not JobStatus.RUNNING or f":{pid}:" not in job.worker:
            return
        if not wait_for_death(job.worker):
            log.warning("job %s: process %d is still running, waiting for its lease to expire", job_id, pid)
            return
        failure = report_lost_run(job, kind, text, type=type_name, pid=pid)
        error = single_line(text, ERROR_BYTES)
        plan = plan_fail(new_operation_id(), job.record["token"], error=error, failure=failure, report={}, delay=None)
        run_sync(store.apply([Write(job_id, plan, answer=False)]))
    except StoreError as error:
        log.warning("job %s: failed to record its failure: %s", job_id, error)


def _is_being_stopped(job: Job) -> bool:
    return "stop_token" in job.record and "stop_confirmed" not in job.record


def wait_for_death(worker: str) -> bool:
    """Return whether a local worker process dies within DEATH_TIMEOUT seconds."""
    until = time.monotonic() + DEATH_TIMEOUT
    try:
        handle = os.pidfd_open(int(worker.split(":")[1]))
    except (OSError, ValueError, IndexError, AttributeError):
        handle = -1
    try:
        while not is_known_dead(worker):
            left = until - time.monotonic()
            if left <= 0:
                return False
            if handle >= 0:
                waiting = select.poll()
                waiting.register(handle, select.POLLIN)
                waiting.poll(left * 1000)
            threading.Event().wait(min(left, POLL_INTERVAL))  # dead but not reaped yet
        return True
    finally:
        if handle >= 0:
            os.close(handle)
