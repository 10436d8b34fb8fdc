"""RQ: `RQTaskQueue(queue, "myapp:jobs")` runs submitted jobs in RQ's work horses; `Worker` registers RQ workers.

RQ finds functions by name, so a message names the application, which the work horse imports for each job unless the
worker has imported it before.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from milepost.core.errors import MissingExtraError
from milepost.integrations.application_reference import ReferencedTaskQueue, dispatcher_of, run_message
from milepost.integrations.dead_process_watch import record_drop
from milepost.worker.dispatcher import LOST_AFTER, TaskQueueUnavailableError

try:
    import rq
    import rq.job
    from redis.exceptions import RedisError
    from rq.command import send_stop_job_command
    from rq.exceptions import InvalidJobOperation, NoSuchJobError, ShutDownImminentException
except ImportError as missing:
    raise MissingExtraError("rq", "milepost.integrations.rq") from missing

RUN = "milepost.integrations.rq.run"
STOPPED = "killed_by_rq"
FAILURE_TTL = 86_400
MAX_HORSE_RESTARTS = 3
"""How often RQ delivers a message again after its work horse was killed, which may happen before the job has started."""


class RQTaskQueue(ReferencedTaskQueue):
    """Runs jobs on the workers of an RQ queue: ``jobs = Jobs(url, task_queue=RQTaskQueue(queue, "myapp:jobs"))``.

    `app` is the application as MODULE:NAME, which workers import. `lost_after`: when a message without a
    start counts as lost (default one hour). Requires the extra `rq`.
    """

    def __init__(
        self, queue: rq.Queue, app: str, *, name: str = "rq", lost_after: float | timedelta | str = LOST_AFTER
    ) -> None:
        super().__init__(app, name, lost_after)
        self.queue = queue

    def _send(self, job_id: str, job_type: str) -> None:
        """Enqueue a message. milepost sets time limits (RQ's default is 180 s); RQ retries only killed work horses."""
        try:
            self.queue.enqueue(
                RUN,
                args=(self._reference, job_id, job_type),
                job_timeout=-1,
                result_ttl=0,
                failure_ttl=FAILURE_TTL,
                description=f"{job_type} {job_id}",
                retry=rq.Retry(max=MAX_HORSE_RESTARTS),
                on_stopped=rq.Callback("milepost.integrations.rq.stopped"),
            )
        except (RedisError, OSError) as error:
            raise TaskQueueUnavailableError(str(error)) from error

    def stop(self, message: Any, *, hard: bool) -> str | None:
        """Send the stop-job command, after which the worker kills its work horse with SIGKILL."""
        try:
            send_stop_job_command(self.queue.connection, message)
        except (RedisError, OSError, NoSuchJobError, InvalidJobOperation) as error:
            raise TaskQueueUnavailableError(str(error)) from error
        return STOPPED

    def is_exit(self, error: BaseException) -> bool:
        """Return whether RQ raised the error in a work horse whose worker is about to be killed."""
        return isinstance(error, ShutDownImminentException)

    def close(self) -> None:
        """Do nothing: the connection belongs to the queue."""


def run(reference: str, job_id: str, job_type: str) -> None:
    """Run a job in a work horse; messages call this function."""
    dispatcher = dispatcher_of(reference, RQTaskQueue)
    dispatcher.disable_thread()
    message = rq.get_current_job()
    if message is not None:
        message.retries_left = 0  # milepost decides about retries after an exception
    run_message(dispatcher, job_id, job_type, message.id if message is not None else None)


def stopped(message: rq.job.Job, connection: Any, *_: Any) -> None:
    """Record a killed work horse; RQ calls this in the worker after a stop-job command."""
    reference, job_id, _ = message.args
    dispatcher = dispatcher_of(reference, RQTaskQueue)
    store = dispatcher.app.store.with_blocking(blocking=True)
    record_drop(store, job_id, dispatcher.task_queue.name, "stopped in RQ", STOPPED)


class Worker(rq.Worker):
    """An RQ worker that is listed under Workers and dispatches leftover jobs. Subclass it with the application::

        class Worker(milepost.integrations.rq.Worker):      # rq worker --worker-class myapp.Worker
            app = "myapp:jobs"

    Its work horses inherit the imported application.
    """

    app: ClassVar[str]
    _running_jobs: tuple[str, ...] = ()

    def register_birth(self) -> None:
        """Register the worker."""
        super().register_birth()  # type: ignore[no-untyped-call]
        dispatcher_of(self.app, RQTaskQueue).register_worker(1, running=lambda: self._running_jobs)

    def execute_job(self, job: rq.job.Job, queue: rq.Queue) -> None:
        """Run a message in a work horse, and keep the id of its job meanwhile."""
        is_own = job.func_name == RUN
        self._running_jobs = (job.args[1],) if is_own else ()
        try:
            super().execute_job(job, queue)
        finally:
            self._running_jobs = ()

    def register_death(self) -> None:
        """Unregister the worker."""
        dispatcher_of(self.app, RQTaskQueue).end()
        super().register_death()  # type: ignore[no-untyped-call]
