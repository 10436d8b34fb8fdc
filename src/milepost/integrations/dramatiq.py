"""Dramatiq: `DramatiqTaskQueue(broker)` runs submitted jobs in Dramatiq's worker threads."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

from milepost.core.errors import JobTimedOut, MissingExtraError, RunStop
from milepost.core.job import Job
from milepost.core.serialization import seconds
from milepost.integrations.thread_interrupt import INTERRUPTED
from milepost.worker.dispatcher import LOST_AFTER, Dispatcher, TaskQueueUnavailableError
from milepost.worker.handlers import Application
from milepost.worker.message_delivery import deliver
from milepost.worker.message_execution import NotDelivered

try:
    import dramatiq
    from dramatiq.errors import BrokerError
    from dramatiq.middleware import Middleware
    from dramatiq.threading import Interrupt, raise_thread_exception
except ImportError as missing:
    raise MissingExtraError("dramatiq", "milepost.integrations.dramatiq") from missing

try:
    from redis.exceptions import RedisError
except ImportError:
    RedisError = BrokerError  # type: ignore[misc, assignment]

NO_LIMIT = 10 * 365 * 86_400_000
"""Milliseconds. milepost sets time limits; Dramatiq's default is ten minutes."""


class HardStop(Interrupt):
    """Raised in a thread whose code ignores the grace period."""


class DramatiqTaskQueue:
    """Runs jobs on the workers of a Dramatiq broker: ``jobs = Jobs(url, task_queue=DramatiqTaskQueue(broker))``.

    `queue`: the queue of their messages. `lost_after`: when a message without a start counts as lost (default one hour).
    Requires the extra `dramatiq`.
    """

    def __init__(
        self,
        broker: dramatiq.Broker,
        *,
        queue: str = "default",
        name: str = "dramatiq",
        lost_after: float | timedelta | str = LOST_AFTER,
    ) -> None:
        self.name = name
        self.lost_after = seconds(lost_after, "lost_after")
        self.broker = broker
        self._queue = queue

    def serve(self, app: Application, dispatcher: Dispatcher) -> None:
        """Register the actor and the middleware for worker events."""

        def run(job_id: str, job_type: str) -> None:
            dispatcher.disable_thread()
            try:
                deliver(app, self, job_id, job_type, threading.get_ident())
            except JobTimedOut as error:
                raise TimeoutError(str(error)) from None
            except (NotDelivered, RunStop, Interrupt):
                return  # the record has the outcome; Dramatiq needs none

        # A worker that shuts down interrupts its threads, which releases their jobs without using an attempt.
        make = dramatiq.actor(
            actor_name="milepost_run",
            broker=self.broker,
            queue_name=self._queue,
            max_retries=0,
            time_limit=NO_LIMIT,
            notify_shutdown=True,
        )
        self.actor = make(run)
        self.broker.add_middleware(_WorkerLifecycle(dispatcher))

    def send(self, job: Job) -> None:
        """Send the message. Raises TaskQueueUnavailableError."""
        self._send(job.job_id, job.job_type)

    def requeue(self, job_id: str, job_type: str, delay: float) -> None:
        """Send the message again after `delay` seconds. Raises TaskQueueUnavailableError."""
        self._send(job_id, job_type, delay=int(delay * 1000))

    def _send(self, job_id: str, job_type: str, **options: Any) -> None:
        try:
            self.actor.send_with_options(args=(job_id, job_type), **options)
        except (BrokerError, RedisError, OSError) as error:
            raise TaskQueueUnavailableError(str(error)) from error

    def stop(self, message: int, *, hard: bool) -> str | None:
        """Raise an exception in the thread; it arrives at the next Python instruction, not inside C calls."""
        raise_thread_exception(message, HardStop)  # type: ignore[no-untyped-call]
        return INTERRUPTED

    def is_exit(self, error: BaseException) -> bool:
        """Return whether milepost or a worker's shutdown raised the error in the thread."""
        return isinstance(error, Interrupt)

    def close(self) -> None:
        """Do nothing: the broker belongs to the application."""


class _WorkerLifecycle(Middleware):
    """Registers and unregisters workers."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def before_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        """Register the worker process: its threads run messages already during the boot."""
        self._dispatcher.register_worker(worker.worker_threads)

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        """Unregister the worker process."""
        self._dispatcher.end()
