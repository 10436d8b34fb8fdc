"""Task queues that find functions by name: a message names the application as MODULE:NAME, which the workers import."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any

from milepost.app import AsyncJobs, Jobs
from milepost.core.errors import InvalidInputError, JobTimedOut, RunStop
from milepost.core.job import Job
from milepost.core.serialization import seconds
from milepost.integrations.thread_interrupt import HardStop, interrupt
from milepost.worker.dispatcher import Dispatcher, TaskQueue
from milepost.worker.handlers import Application
from milepost.worker.message_delivery import deliver
from milepost.worker.message_execution import NotDelivered


class ReferencedTaskQueue:
    """The base of these task queues. A message runs in a thread of a worker, whose ident is the message of `stop`."""

    def __init__(self, app: str, name: str, lost_after: float | timedelta | str) -> None:
        self.name = name
        self.lost_after = seconds(lost_after, "lost_after")
        self._reference = checked_reference(app)

    def serve(self, app: Application, dispatcher: Dispatcher) -> None:
        """Do nothing: workers import the application by its name."""

    def send(self, job: Job) -> None:
        """Send the message. Raises TaskQueueUnavailableError."""
        self._send(job.job_id, job.job_type)

    def requeue(self, job_id: str, job_type: str, delay: float) -> None:
        """Send the message again at once: Dask and Ray have no delay, and many RQ workers run no scheduler.

        Raises TaskQueueUnavailableError.
        """
        self._send(job_id, job_type)

    def _send(self, job_id: str, job_type: str) -> None:
        raise NotImplementedError

    def stop(self, message: Any, *, hard: bool) -> str | None:
        """Raise an exception in the thread; it arrives at the next Python instruction, not inside C calls."""
        return interrupt(message)

    def is_exit(self, error: BaseException) -> bool:
        """Return whether milepost raised the error in the thread."""
        return isinstance(error, HardStop)


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


def run_message(dispatcher: Dispatcher, job_id: str, job_type: str, message: Any) -> None:
    """Run the job of a message in this thread. `message` is what `TaskQueue.stop` gets.

    Raises TimeoutError if the job exceeds its time limit, and the errors of its code. A run that was stopped or not
    delivered returns: the record has the outcome, and the task queue needs none.
    """
    try:
        deliver(dispatcher.app, dispatcher.task_queue, job_id, job_type, message)
    except JobTimedOut as error:
        raise TimeoutError(str(error)) from None
    except (NotDelivered, RunStop, HardStop):
        return
