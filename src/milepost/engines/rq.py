"""RQ: `RQEngine(queue, "myapp:jobs")` runs submitted jobs in its work horses. Owns the function that takes the messages, and
what a stop-job command means. `Worker` is RQ's own, which also says that it lives.

RQ finds functions by name, so a message names the application, which its work horse imports for each job unless the
worker has done so before.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from milepost.app import AsyncJobs, Jobs
from milepost.core.encoding import seconds
from milepost.core.errors import InvalidInput, JobTimedOut, MissingExtra, Stop
from milepost.core.job import Job
from milepost.engines.watching import dropped
from milepost.worker.application import Application
from milepost.worker.delivery import NotDelivered, deliver
from milepost.worker.engine import LOST_AFTER, EngineUnavailable, Handing

try:
    import rq
    import rq.job
    from redis.exceptions import RedisError
    from rq.command import send_stop_job_command
    from rq.exceptions import InvalidJobOperation, NoSuchJobError, ShutDownImminentException
except ImportError as missing:
    raise MissingExtra("rq", "milepost.engines.rq") from missing

RUN = "milepost.engines.rq.run"
STOPPED = "killed (RQ stop-job)"
FAILURES_KEPT = 86_400


class RQEngine:
    """Runs jobs on the workers of an RQ queue: ``jobs = Jobs(url, engine=RQEngine(queue, "myapp:jobs"))``.

    `app` is where workers find the application: its module and its name there. `lost_after`: when a message without a
    start counts as lost (default one hour). Needs the extra `rq`.
    """

    def __init__(
        self, queue: rq.Queue, app: str, *, name: str = "rq", lost_after: float | timedelta | str = LOST_AFTER
    ) -> None:
        if not app.partition(":")[2]:
            raise InvalidInput("app", f"{app!r:.60} must name a module and what is in it, as in 'myapp:jobs'")
        self.name = name
        self.lost_after = seconds(lost_after, "lost_after")
        self.queue = queue
        self._reference = app

    def serve(self, app: Application, handing: Handing) -> None:
        """Nothing to make: the workers import the application by its name."""
        self.handing = handing

    def hand_over(self, job: Job) -> None:
        """Send the message. Raises EngineUnavailable. Its time limits are ours: RQ's default is 180 s."""
        try:
            self.queue.enqueue(
                RUN,
                args=(self._reference, job.job_id, job.job_type),
                job_timeout=-1,
                result_ttl=0,
                failure_ttl=FAILURES_KEPT,
                description=f"{job.job_type} {job.job_id}",
                on_stopped=rq.Callback("milepost.engines.rq.stopped"),
            )
        except (RedisError, OSError) as error:
            raise EngineUnavailable(str(error)) from error

    def stop(self, message: str, *, hard: bool) -> str | None:
        """The stop-job command: the worker kills its work horse with SIGKILL."""
        try:
            send_stop_job_command(self.queue.connection, message)
        except (RedisError, OSError, NoSuchJobError, InvalidJobOperation) as error:
            raise EngineUnavailable(str(error)) from error
        return STOPPED

    def is_exit(self, error: BaseException) -> bool:
        """RQ raises it in a work horse whose worker is about to be killed."""
        return isinstance(error, ShutDownImminentException)

    def close(self) -> None:
        """Nothing is opened here: the queue's connection is its owner's."""


def run(reference: str, job_id: str, job_type: str) -> None:
    """What a message calls, in a work horse."""
    engine = engine_of(reference)
    engine.handing.rest()
    message = rq.get_current_job()
    try:
        deliver(engine.handing.app, engine, job_id, job_type, message.id if message is not None else None)
    except JobTimedOut as error:
        raise TimeoutError(str(error)) from None
    except (NotDelivered, Stop):
        return


def stopped(message: rq.job.Job, connection: Any, *_: Any) -> None:
    """What RQ calls, in the worker, when a stop-job command has killed the work horse."""
    reference, job_id, _ = message.args
    engine = engine_of(reference)
    dropped(engine.handing.app.store.twin(blocking=True), job_id, engine.name, "stopped in RQ", STOPPED)


def engine_of(reference: str) -> RQEngine:
    """The engine of the application that a message names. Raises InvalidInput."""
    import importlib

    module, _, name = reference.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    handing = found.handing if isinstance(found, Jobs | AsyncJobs) else None
    if handing is None or not isinstance(handing.engine, RQEngine):
        raise InvalidInput("app", f"{reference} is no Jobs with an RQEngine")
    return handing.engine


class Worker(rq.Worker):
    """RQ's worker, which also lives among milepost's and hands over what was left; for a subclass that names the application::

        class Worker(milepost.engines.rq.Worker):      # rq worker --worker-class myapp.Worker
            app = "myapp:jobs"

    Its work horses then find the application imported.
    """

    app: ClassVar[str]

    def register_birth(self) -> None:
        """The worker starts."""
        super().register_birth()  # type: ignore[no-untyped-call]
        engine_of(self.app).handing.at_work(1)

    def register_death(self) -> None:
        """It ends."""
        engine_of(self.app).handing.end()
        super().register_death()  # type: ignore[no-untyped-call]
