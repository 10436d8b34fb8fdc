"""Jobs as the task results of Django."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from milepost.core.codecs import decode_dataclass, failure_rows
from milepost.core.job import Job
from milepost.core.values import Failure, JobStatus
from milepost.django import tasks_api
from milepost.integrations.mapping import CANCELLED, DJANGO


def result_of(job: Job, task: Any, alias: str) -> Any:
    """Return a job as the result of a task, with the queue, priority and earliest start that the job has."""
    params = job.params or {}
    result = tasks_api.TaskResult(
        task=_task_of(job, task, alias),
        id=job.job_id,
        status=tasks_api.TaskResultStatus[DJANGO.status_of(job)],
        args=params.get("args", []),
        kwargs=params.get("kwargs", {}),
        backend=alias,
        errors=errors_of(job),
        worker_ids=[attempt.worker or "" for attempt in job.attempts],
        **DJANGO.times_of(job),
    )
    if job.status is JobStatus.COMPLETED:
        set_field(result, "_return_value", job.result)
    return result


def _task_of(job: Job, task: Any, alias: str) -> Any:
    """Return a copy of a task, not validated: TASKS may no longer have the queue of the job."""
    copied = object.__new__(type(task))  # a task pickles, and so copies, as its name
    for one in fields(task):
        set_field(copied, one.name, getattr(task, one.name))
    set_field(copied, "backend", alias)
    set_field(copied, "queue_name", job.queue or task.queue_name)
    set_field(copied, "priority", job.priority)
    set_field(copied, "run_after", job.not_before or task.run_after)
    return copied


def update(result: Any, job: Job, task: Any, alias: str) -> None:
    """Give a result, which is frozen for others, the state of a job, and all its fields if it is that of another job."""
    current = result_of(job, task, alias)
    others = () if result.id == job.job_id else ("id", "task", "args", "kwargs")
    for name in (*others, *tasks_api.TASK_REFRESH_ATTRS):
        set_field(result, name, getattr(current, name))


set_field = object.__setattr__
"""Sets a field of a result or task, as Django's own backends do."""


def errors_of(job: Job) -> list[Any]:
    """Return the errors of a job's failed attempts, oldest first, and the cancel of a cancelled job last."""
    errors = [_error(decode_dataclass(Failure, row)) for row in failure_rows(job.record)]
    if job.status is JobStatus.CANCELLED:
        reason = job.receipt.reason if job.receipt is not None else None
        text = job.activity if reason is None else f"{job.activity}: {reason}"
        errors.append(tasks_api.TaskError(exception_class_path=DJANGO.error_of(CANCELLED), traceback=text))
    return errors


def _error(failure: Failure) -> Any:
    path = failure.type or DJANGO.error_of(failure.kind)
    return tasks_api.TaskError(
        exception_class_path=path if "." in path else f"builtins.{path}",
        traceback=failure.traceback or failure.message,
    )
