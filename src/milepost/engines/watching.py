"""What the process that holds an engine's workers sees of them: that a job was dropped by the engine, that a child has died.

Owns what is written of it. Knows no engine.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time

from milepost.core.errors import StoreError
from milepost.core.job import Job, JobStatus
from milepost.core.lifecycle import plan_cancel, plan_receipt
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Store, Write
from milepost.tracking.process import is_dead

log = logging.getLogger("milepost.engine")

LOOKS = 0.1
DIES_WITHIN = 30.0


def dropped(store: Store, job_id: str, by: str, why: str, how: str | None) -> None:
    """The engine has dropped a message, or, where there is a `how`, killed what ran it: cancel the job, unless its stop
    was asked for here; and once its process has died say so in its receipt. Waits for that; for a thread."""
    try:
        job = drive(store.get(job_id))
        if job is None:
            return
        if not _is_being_stopped(job):
            if job.status is not (JobStatus.PENDING if how is None else JobStatus.RUNNING):
                return  # it was a message too many, or the run that was killed has ended in the record already
            outcome = drive(store.apply([Write(job_id, plan_cancel(new_op(), by=by, why=why))])).outcomes[0]
            if not outcome.accepted or outcome.job is None:
                return
            job = outcome.job
        token = job.record.get("stop_token")
        if how is not None and token and job.worker and wait_for_death(job.worker):
            drive(store.apply([Write(job_id, plan_receipt(new_op(), token, how, confirmed=True), answer=False)]))
    except StoreError as error:
        log.warning("job %s: its end in %s could not be written: %s", job_id, by, error)


def _is_being_stopped(job: Job) -> bool:
    return "stop_token" in job.record and "stop_how" not in job.record


def wait_for_death(worker: str, within: float = DIES_WITHIN) -> bool:
    """Whether a process of this machine, by the name that milepost gives it, dies in so many seconds."""
    until = time.monotonic() + within
    try:
        handle = os.pidfd_open(int(worker.split(":")[1]))
    except (OSError, ValueError, IndexError, AttributeError):
        handle = -1
    try:
        while not is_dead(worker):
            left = until - time.monotonic()
            if left <= 0:
                return False
            if handle >= 0:
                waiting = select.poll()
                waiting.register(handle, select.POLLIN)
                waiting.poll(left * 1000)
            threading.Event().wait(min(left, LOOKS))  # dead, and still to be reaped
        return True
    finally:
        if handle >= 0:
            os.close(handle)
