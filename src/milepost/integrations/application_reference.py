"""The dispatcher of an application that a message names as MODULE:NAME, for task queues that find functions by name."""

from __future__ import annotations

from importlib import import_module

from milepost.app import AsyncJobs, Jobs
from milepost.core.errors import InvalidInputError
from milepost.worker.dispatcher import Dispatcher, TaskQueue


def checked_reference(app: str) -> str:
    """Return the name of an application. Raises InvalidInputError unless it is MODULE:NAME."""
    module, _, name = app.partition(":")
    if not module or not name:
        raise InvalidInputError("app", f"{app!r:.60} must be MODULE:NAME, e.g. 'myapp:jobs'")
    return app


def dispatcher_of(reference: str, task_queue: type[TaskQueue]) -> Dispatcher:
    """Import an application and return its dispatcher.

    Raises InvalidInputError if the name is not that of a Jobs with a task queue of this class, and the errors of its import.
    """
    module, _, name = reference.partition(":")
    found = getattr(import_module(module), name, None)
    dispatcher = found.dispatcher if isinstance(found, Jobs | AsyncJobs) else None
    if dispatcher is None or not isinstance(dispatcher.task_queue, task_queue):
        raise InvalidInputError("app", f"{reference} is not a Jobs whose task queue is a {task_queue.__name__}")
    return dispatcher
