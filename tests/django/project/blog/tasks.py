"""Tasks of the test project."""

import asyncio
import threading
import time
from typing import Any

from django.contrib.auth.models import Group

from blog.decorator import task
from milepost import Job, Run
from milepost.django.tasks_api import task_backends

jobs = task_backends["default"].jobs
stop_waiting = threading.Event()


@task()
def add(left: int, right: int = 1) -> int:
    """Return the sum."""
    return left + right


@task()
async def add_later(left: int, right: int) -> tuple[int, ...]:
    """Return the sum in a tuple."""
    await asyncio.sleep(0)
    return (left + right,)


@task(takes_context=True)
def count(context: Any, to: int) -> dict[str, Any]:
    """Count with progress, and say what the context knows."""
    for _ in context.run.each(range(to)):
        pass
    return {"attempt": context.attempt, "worker": context.task_result.worker_ids[-1], "job": context.run.job_id}


@task(takes_context=True)
def fail_until(context: Any, attempt: int) -> str:
    """Fail before an attempt."""
    if context.attempt < attempt:
        raise LookupError(f"attempt {context.attempt}")
    return "done"


@task(takes_context=True)
def wait_for_cancel(context: Any) -> None:
    """Report progress until the task is cancelled."""
    while not stop_waiting.is_set():
        context.run.progress(0.5, message="waiting")
        time.sleep(0.01)


@task(takes_context=True)
def add_in_children(context: Any, numbers: list[int]) -> int:
    """Return the sum of what children return: one for each number, which adds 1 to it."""
    for number in numbers:
        context.run.submit_child(
            str(number), add.using(queue_name="slow", labels={"number": str(number)}), number, right=1
        )
    children = context.run.join()
    return sum(children.result(str(number)) for number in numbers)


@task(queue_name="slow", priority=5)
def slow() -> None:
    """Do nothing, in another queue."""


@task()
def return_object() -> object:
    """Return what is not JSON."""
    return object()


@jobs.job("blog.label", isolation="process", queue="slow")
def label(run: Run) -> str:
    """Use a model in a child process."""
    return Group._meta.label


def count_at_end(job: Job) -> None:
    """Query the database when a handler has ended."""
    counted_at_end.append(Group.objects.count())


counted_at_end: list[int] = []


@jobs.job("blog.count_groups", queue="slow", on_completed=count_at_end)
def count_groups(run: Run) -> int:
    """Query the database in a thread of the worker."""
    return Group.objects.count()


@jobs.job("blog.count_groups_later", queue="slow", on_completed=count_at_end)
async def count_groups_later(run: Run) -> int:
    """Query the database in the event loop of the worker."""
    return await Group.objects.acount()
