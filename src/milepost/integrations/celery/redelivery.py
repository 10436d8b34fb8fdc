"""Messages whose job does not run now: postpone them, or give Celery the recorded outcome."""

from __future__ import annotations

import builtins
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from celery.exceptions import Ignore, Reject
from celery.states import READY_STATES
from celery.utils.serialization import create_exception_cls
from kombu.exceptions import OperationalError
from kombu.utils import json

from milepost.core.job import Job, JobStatus
from milepost.integrations.celery.message import TaskMessage

log = logging.getLogger("milepost.task_queue")

BROKER_RETRY_DELAY = 60.0
"""Seconds that a postponed message is held while the broker does not accept it."""
RESULT_NOT_KEPT = '"-"'
"""The recorded Celery result if it cannot be written as Celery JSON."""


def postpone(task: Any, seconds: float, **headers: Any) -> NoReturn:
    """Send the message of `task` again, to run in `seconds`, and end this delivery.

    The new message keeps task id, callbacks, workflow position and retries. The delivered message is acknowledged only
    afterwards.
    """
    eta = datetime.now(UTC) + timedelta(seconds=seconds)
    until = time.monotonic() + BROKER_RETRY_DELAY
    while True:
        try:
            message = TaskMessage.of_request(task.request)
            message.send(task.app, serializer=task.serializer, eta=eta, retry=True, **headers)
        except (OperationalError, OSError) as error:
            log.warning("task %s[%s]: broker unavailable, holding its message: %s", task.name, task.request.id, error)
            if time.monotonic() > until:
                raise Reject(str(error), requeue=True) from error
            threading.Event().wait(1.0)
        else:
            raise Ignore


def longest_delay(app: Any, seconds: float) -> float:
    """Return `seconds`, or half the broker's visibility timeout if that is shorter."""
    visible = (app.conf.broker_transport_options or {}).get("visibility_timeout")
    return seconds if not visible else max(0.5, min(seconds, float(visible) / 2))


def needs_outcome(task: Any) -> bool:
    """Return whether anything waits for the outcome of the message of `task`.

    Celery continues chains and calls links before it stores a result, so a stored result means that these are done. Only
    a chord counts a member after its result is stored.
    """
    request = task.request
    if task.ignore_result or request.ignore_result:
        return bool(request.callbacks or request.errbacks or request.chain or request.chord)
    try:
        known = task.AsyncResult(request.id).state in READY_STATES
        if known and request.chord:
            body_id = (request.chord.get("options") or {}).get("task_id")
            return bool(body_id) and task.AsyncResult(body_id).state not in READY_STATES
    except Exception as error:  # noqa: BLE001 - without a result backend Celery raises AttributeError and others
        log.debug("task %s[%s]: result backend unavailable: %s", task.name, request.id, error)
        return bool(request.callbacks or request.errbacks or request.chain or request.chord)
    return not known


def outcome_of(job: Job) -> Any:
    """Return the recorded result of a completed job, or raise the recorded error of a failed one."""
    if job.status is JobStatus.FAILED:
        raise recorded_error(job)
    kept = job.record.get("queue_result")
    if kept is not None and kept != RESULT_NOT_KEPT:
        return json.loads(kept)  # type: ignore[no-untyped-call]
    if job.result_error is not None:
        log.error("job %s: giving Celery the text of its result (%s)", job.job_id, job.result_error)
        return job.result_text
    return job.result


def recorded_error(job: Job) -> Exception:
    """Return the recorded error of a failed job as an exception with the same class name."""
    kind = (job.failure.type if job.failure is not None else None) or "JobFailed"
    module, _, name = kind.rpartition(".")
    known = getattr(builtins, name, None) if not module else None
    text = job.error or str(job.status)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(text)
        except TypeError:  # e.g. UnicodeDecodeError, which needs more arguments
            pass
    return create_exception_cls(name, module or __name__)(text)  # type: ignore[no-any-return]


def result_for_celery(result: Any) -> str | None:
    """Return a result as Celery JSON if plain JSON would not restore it, else None."""
    try:
        text = str(json.dumps(result))  # type: ignore[no-untyped-call]
    except (TypeError, ValueError, RecursionError):
        return RESULT_NOT_KEPT
    return text if '"__type__"' in text else None
