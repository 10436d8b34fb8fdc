"""Dramatiq: `DramatiqEngine(broker)` runs submitted jobs in its worker threads. Owns the actor that takes the messages,
and the exception that ends a thread's code.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

from milepost.core.encoding import seconds
from milepost.core.errors import JobTimedOut, MissingExtra, Stop
from milepost.core.job import Job
from milepost.worker.application import Application
from milepost.worker.delivery import NotDelivered, deliver
from milepost.worker.engine import LOST_AFTER, EngineUnavailable, Handing

try:
    import dramatiq
    from dramatiq.errors import BrokerError
    from dramatiq.middleware import Middleware
    from dramatiq.threading import Interrupt, raise_thread_exception
except ImportError as missing:
    raise MissingExtra("dramatiq", "milepost.engines.dramatiq") from missing

try:
    from redis.exceptions import RedisError
except ImportError:
    RedisError = BrokerError  # type: ignore[misc, assignment]

NO_LIMIT = 10 * 365 * 86_400_000
"""Milliseconds; time limits are ours, and Dramatiq's default is ten minutes."""


class Stopped(Interrupt):
    """Raised in the thread of code that goes on past its grace time."""


class DramatiqEngine:
    """Runs jobs on the workers of a Dramatiq broker: ``jobs = Jobs(url, engine=DramatiqEngine(broker))``.

    `queue`: the queue of their messages. `lost_after`: when a message without a start counts as lost (default one hour).
    Needs the extra `dramatiq`.
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

    def serve(self, app: Application, handing: Handing) -> None:
        """Make the actor, and hear of the worker's life."""

        def run(job_id: str, job_type: str) -> None:
            handing.rest()
            try:
                deliver(app, self, job_id, job_type, threading.get_ident())
            except JobTimedOut as error:
                raise TimeoutError(str(error)) from None
            except (NotDelivered, Stop, Interrupt):
                return  # nothing to tell Dramatiq: the record says what became of the job

        # A worker that ends interrupts what runs, which gives the job back at no cost of an attempt.
        make = dramatiq.actor(
            actor_name="milepost_run",
            broker=self.broker,
            queue_name=self._queue,
            max_retries=0,
            time_limit=NO_LIMIT,
            notify_shutdown=True,
        )
        self.actor = make(run)
        self.broker.add_middleware(_Life(handing))

    def hand_over(self, job: Job) -> None:
        """Send the message. Raises EngineUnavailable."""
        try:
            self.actor.send(job.job_id, job.job_type)
        except (BrokerError, RedisError, OSError) as error:
            raise EngineUnavailable(str(error)) from error

    def stop(self, message: int, *, hard: bool) -> str | None:
        """Raise an exception in the code's thread: it comes at the next step of Python, and not into a call of C."""
        raise_thread_exception(message, Stopped)  # type: ignore[no-untyped-call]
        return "interrupted (exception in its thread)"

    def is_exit(self, error: BaseException) -> bool:
        """Ours, and what Dramatiq raises in the threads of a worker that ends."""
        return isinstance(error, Interrupt)

    def close(self) -> None:
        """Nothing is opened here: the broker is its owner's."""


class _Life(Middleware):
    """Tells milepost that a worker lives, and that it ends."""

    def __init__(self, handing: Handing) -> None:
        self._handing = handing

    def after_worker_boot(self, broker: dramatiq.Broker, worker: Any) -> None:
        """A process of workers is up."""
        self._handing.at_work(worker.worker_threads)

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        """It ends."""
        self._handing.end()
