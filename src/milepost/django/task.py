"""The task class with milepost's options, the context that a task receives, and the tasks that this process knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal

from django.utils.module_loading import autodiscover_modules

from milepost.core.job import Job
from milepost.django import tasks_api
from milepost.run.run import Run

OPTIONS = ("unique_key", "max_attempts", "timeout", "on_lost", "labels", "after")

known_tasks: dict[str, Any] = {}
"""The first task of each function that was decorated or enqueued in this process, by the path of the function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MilepostTask(tasks_api.Task):
    """A task with milepost's options: ``@task(max_attempts=3, timeout="10m")``, or ``.using(...)`` for one enqueue.

    - `unique_key`: while a task with this key has not finished, enqueue returns its result instead of another task.
    - `max_attempts`: how many attempts may end with an error (default 1).
    - `timeout`: the limit of one attempt: seconds, a timedelta or text such as "2h".
    - `on_lost`: "retry" (default) or "fail" a task whose worker died.
    - `labels`: up to 16 pairs of text to filter by in the dashboard.
    - `after`: what the task waits for: task results, or ``job:ID``, ``children:ID`` or ``group:NAME``.
    """

    unique_key: str | None = None
    max_attempts: int | None = None
    timeout: float | timedelta | str | None = None
    on_lost: Literal["retry", "fail"] | None = None
    labels: Mapping[str, str] | None = field(default=None, hash=False)
    after: Sequence[Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        tasks_api.Task.__post_init__(self)
        known_tasks.setdefault(self.module_path, self)

    def using(self, **changes: Any) -> MilepostTask:
        """Return a task with other options: those of Django's `using` and those of this class; None keeps one."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})

    def child_fields(self, run: Run, /, *args: Any, **kwargs: Any) -> dict[str, str]:
        """Return the fields of a child of a run for this task: ``context.run.submit_child("a", task, 1)`` uses it."""
        fields: dict[str, str] = self.get_backend().child_fields(self, run, args, kwargs)
        return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext(tasks_api.TaskContext):
    """What a task with ``takes_context=True`` receives. `run` reports progress, resumes loops and tells of a cancel."""

    run: Run


def options_of(task: Any) -> dict[str, Any]:
    """Return milepost's options of a task that are set. A task of another backend has none."""
    options = {name: getattr(task, name, None) for name in OPTIONS}
    if options["after"] is not None:
        options["after"] = [_awaited(one) for one in options["after"]]
    return {name: value for name, value in options.items() if value is not None}


def _awaited(one: Any) -> str:
    """Return an entry of `after` as text: a task result, a job, or a text, which may be an id alone."""
    if hasattr(one, "id"):
        return f"job:{one.id}"
    if isinstance(one, Job):
        return f"job:{one.job_id}"
    text = str(one)
    return text if ":" in text else f"job:{text}"


def find_task(path: str) -> Any | None:
    """Return the task of the function with this path, or None if no `tasks` module of an installed app defines it."""
    if path not in known_tasks:
        import_tasks()
    return known_tasks.get(path)


def import_tasks() -> None:
    """Import the module `tasks` of every installed app."""
    autodiscover_modules("tasks")
