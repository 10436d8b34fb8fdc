"""Runs a task in a worker, with Django's signals."""

from __future__ import annotations

import inspect
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from milepost.core.job import Job, JobStatus
from milepost.django import tasks_api
from milepost.django.results import result_of
from milepost.django.task import TaskContext, options_of
from milepost.run.async_run import AsyncRun
from milepost.run.run import Run
from milepost.worker.end_hooks import EndHooks
from milepost.worker.handlers import Handler, TypeOptions

if TYPE_CHECKING:
    from milepost.django.backend import Backend

log = logging.getLogger("milepost.django")

MAX_RAISED = 20
"""How many exceptions are kept until the end of their tasks. One stays if the task is retried, and ends in another process."""

TYPE_OPTIONS = ("max_attempts", "timeout", "on_lost", "labels")


def handler_of(task: Any, backend: Backend) -> Handler[Any, Any]:
    """Return the handler that runs a task; its job type is the path of the function. Raises InvalidInputError."""
    alias, sender = backend.alias, type(backend)
    raised: OrderedDict[str, BaseException] = OrderedDict()

    def started(run: Run) -> tuple[Any, ...]:
        result = result_of(run._job, task, alias)
        context = (TaskContext(task_result=result, run=run),) if task.takes_context else ()
        return result, context

    def ended(job: Job) -> None:
        error = raised.pop(job.job_id, None)
        if error is None or job.status is JobStatus.COMPLETED:
            finished(job)
            return
        try:
            raise error
        except BaseException:  # noqa: BLE001 - Django's receiver logs the exception that is being handled
            finished(job)

    def finished(job: Job) -> None:
        tasks_api.task_finished.send(sender=sender, task_result=result_of(job, task, alias))

    def failed(run: Run, error: BaseException) -> None:
        if isinstance(error, Exception):
            log.warning("task %s (%s): attempt %d failed", run.job_id, run.job_type, run.attempt, exc_info=True)
        raised[run.job_id] = error
        if len(raised) > MAX_RAISED:
            raised.popitem(last=False)

    def run_task(run: Run, args: list[Any] = [], kwargs: dict[str, Any] = {}) -> Any:  # noqa: B006 - copied for each run
        result, context = started(run)
        tasks_api.task_started.send(sender=sender, task_result=result)
        try:
            return tasks_api.normalize_json(task.func(*context, *args, **kwargs))
        except BaseException as error:
            failed(run, error)
            raise

    async def run_async_task(run: AsyncRun, args: list[Any] = [], kwargs: dict[str, Any] = {}) -> Any:  # noqa: B006
        try:
            result, context = started(run)
            await tasks_api.task_started.asend(sender=sender, task_result=result)
            return tasks_api.normalize_json(await task.func(*context, *args, **kwargs))
        except BaseException as error:
            failed(run, error)
            raise

    code: Callable[..., Any] = run_async_task if inspect.iscoroutinefunction(task.func) else run_task
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(code, name, getattr(task.func, name))
    options = {name: value for name, value in options_of(task).items() if name in TYPE_OPTIONS}
    defaults = TypeOptions.of(queue=task.queue_name, priority=task.priority, **options)
    return Handler(task.module_path, code, replace(defaults, hooks=EndHooks(ended, ended, ended)))
