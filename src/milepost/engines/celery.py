"""Celery: `CeleryEngine(app)` runs submitted jobs on its workers; `@tracked` gives a task that exists already a record.

Owns what Celery is told of a job and what it tells of one: messages, revokes, retries, workers that live. What a message
may do when it arrives is the seam's. A message of a submitted job is acknowledged when it arrives, so no broker sends it
again while it runs; a tracked task keeps its own settings, and the lease lets the second of two deliveries pass by.
"""

from __future__ import annotations

import logging
import signal
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, overload
from weakref import WeakKeyDictionary

from milepost.app import AsyncJobs, Jobs
from milepost.core.encoding import job_id_text, job_type_text, seconds
from milepost.core.errors import (
    InvalidInput,
    JobCancelled,
    JobReleased,
    JobTimedOut,
    LeaseLost,
    MissingExtra,
    Refused,
    StoreError,
)
from milepost.core.job import Job, JobStatus
from milepost.core.lifecycle import plan_create
from milepost.engines.watching import dropped
from milepost.manager.requests import submit_fields
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Write
from milepost.tracking.run import Run
from milepost.worker.application import Application
from milepost.worker.delivery import Delivery, EngineRetry, NotDelivered, current_run, deliver
from milepost.worker.engine import LOST_AFTER, EngineUnavailable, Handing
from milepost.worker.published import JobType, doc_of

try:
    import celery
    from billiard import current_process
    from celery import signals
    from celery.exceptions import Ignore, Reject, WorkerShutdown, WorkerTerminate
    from celery.exceptions import Retry as CeleryRetry
    from celery.utils.time import maybe_make_aware
    from kombu.exceptions import OperationalError
except ImportError as missing:
    raise MissingExtra("celery", "milepost.engines.celery") from missing

log = logging.getLogger("milepost.engine")

RUN_TASK = "milepost.run"
STORE_AWAY_SECONDS = 10.0


class Message(NamedTuple):
    """What a stop needs of a message that is being run: its id, the worker that runs it, and whether in a child of it."""

    task_id: str
    hostname: str
    in_child: bool


class CeleryEngine:
    """Runs jobs on the workers of a Celery application: ``jobs = Jobs(url, engine=CeleryEngine(app))``.

    `queue`: the queue of their messages (default: where Celery routes the task ``milepost.run``). `lost_after`: when a
    message without a start counts as lost (default one hour). Needs the extra `celery`.
    """

    def __init__(
        self,
        app: celery.Celery,
        *,
        queue: str | None = None,
        name: str = "celery",
        lost_after: float | timedelta | str = LOST_AFTER,
    ) -> None:
        self.name = name
        self.lost_after = seconds(lost_after, "lost_after")
        self.app = app
        self._route = {} if queue is None else {"queue": queue}
        self.tracked: dict[str, Tracked] = {}
        """The tasks under `@tracked`, by job type."""

    def serve(self, app: Application, handing: Handing) -> None:
        """Make the task, and listen to the workers of this process."""
        self.jobs = app
        self.handing = handing

        def run(task: Any, job_id: str, job_type: str) -> None:
            self.told(task, lambda message: deliver(app, self, job_id, job_type, message))

        self.app.task(run, name=RUN_TASK, bind=True, ignore_result=True, acks_late=False, shared=False)
        # Signals keep their receivers weakly; this engine lives as long as its application.
        signals.worker_ready.connect(self._on_ready, weak=False)
        signals.worker_shutdown.connect(self._on_shutdown, weak=False)
        signals.task_revoked.connect(self._on_revoked, weak=False)

    def hand_over(self, job: Job) -> None:
        """Send the message. Raises EngineUnavailable."""
        task = self.tracked.get(job.job_type)
        try:
            if task is not None:
                task.send(job)
            else:
                arguments = (job.job_id, job.job_type)
                self.app.send_task(RUN_TASK, arguments, ignore_result=True, retry=False, **self._route)
        except (OperationalError, OSError) as error:
            raise EngineUnavailable(str(error)) from error

    def stop(self, message: Message, *, hard: bool) -> str | None:
        """Revoke with terminate: SIGTERM, then SIGKILL, to the child process of the worker; other pools have no means."""
        if not message.in_child:
            return None
        number = signal.SIGKILL if hard else signal.SIGTERM
        try:
            self.app.control.revoke(message.task_id, terminate=True, signal=number.name, destination=[message.hostname])
        except (OperationalError, OSError) as error:
            raise EngineUnavailable(str(error)) from error
        return _how(number)

    def is_exit(self, error: BaseException) -> bool:
        """A worker that ends raises it, as does the signal that ends a child; code may raise SystemExit too."""
        if isinstance(error, WorkerShutdown | WorkerTerminate):
            return True
        frames = traceback.extract_tb(error.__traceback__)
        return isinstance(error, SystemExit) and bool(frames) and "billiard" in Path(frames[-1].filename).parts

    def close(self) -> None:
        """Nothing is opened here: the connections are the application's."""

    # --- in a worker ---

    def told(self, task: Any, run: Callable[[Message], Any]) -> Any:
        """Run a delivery, and say in Celery's words how it went: a result, an exception, or nothing at all."""
        self.handing.rest()
        request = task.request
        message = Message(request.id, request.hostname or "", bool(current_process().daemon))
        try:
            return run(message)
        except NotDelivered as refused:
            if refused.job is not None and refused.job.status is JobStatus.CANCELLED:
                _show_revoked(task)
            raise Ignore from None
        except JobCancelled:
            _show_revoked(task)
            raise Ignore from None
        except (JobReleased, LeaseLost):
            raise Ignore from None
        except JobTimedOut as error:
            raise TimeoutError(str(error)) from None
        except StoreError as error:
            # Nothing has begun: the message comes again, which is no attempt of the job.
            raise task.retry(exc=error, countdown=STORE_AWAY_SECONDS, max_retries=None) from error

    def _on_ready(self, sender: Any, **_: Any) -> None:
        if sender.app is self.app:
            types = [task.type for task in self.tracked.values()]
            self.handing.at_work(int(sender.controller.concurrency or 1), types)

    def _on_shutdown(self, **_: Any) -> None:
        self.handing.end()

    def _on_revoked(
        self, request: Any, terminated: bool = False, signum: Any = None, expired: bool = False, **_: Any
    ) -> None:
        """A worker has dropped a task, or killed what ran it: because we asked, or somebody who asked Celery."""
        if request.task == RUN_TASK:
            job_id = request.args[0]
        elif any(request.task == known.task.name for known in self.tracked.values()):
            job_id = job_id_of(request)
        else:
            return
        how = _how(signal.Signals(int(signum))) if terminated else None
        why = "expired in Celery" if expired else "revoked in Celery"
        store = self.jobs.store.twin(blocking=True)
        threading.Thread(target=dropped, args=(store, job_id, self.name, why, how), daemon=True).start()


def _how(number: signal.Signals) -> str:
    return f"terminated (Celery revoke, {number.name})"


def _show_revoked(task: Any) -> None:
    """Let those who wait for Celery's own result hear that none will come."""
    if not task.ignore_result:
        task.backend.mark_as_revoked(task.request.id, "cancelled", request=task.request)


# --- tasks that exist already ---

ARGUMENTS = {
    "type": "object",
    "properties": {"args": {"type": "array"}, "kwargs": {"type": "object"}},
    "additionalProperties": False,
}
"""The parameters of a tracked task's job, as a schema."""
HEADER = "milepost"
"""The header of a message that names its job."""
ATTEMPTS = 1000
"""The budget in the record of a tracked task: Celery decides when it has failed for good."""

T = TypeVar("T")


@overload
def tracked(task: T) -> T: ...


@overload
def tracked(
    *,
    jobs: Jobs | AsyncJobs | None = None,
    job_type: str | None = None,
    on_lost: Literal["retry", "fail"] | None = None,
) -> Callable[[T], T]: ...


def tracked(
    task: Any = None,
    *,
    jobs: Jobs | AsyncJobs | None = None,
    job_type: str | None = None,
    on_lost: Literal["retry", "fail"] | None = None,
) -> Any:
    """Give a task a record, a run (`current_run()`), progress and cancel; written above ``@app.task``.

    Each call is a job of type `job_type` (default: the task's name), with the task's id. Retries stay Celery's. `on_lost`:
    what becomes of one whose process has died; by default it runs again if the task acknowledges late, and else fails.
    `jobs`: where (default: the store of the environment). Raises InvalidInput for what is no task.
    """
    if task is None:
        return lambda task: tracked_as(task, jobs, job_type, on_lost)
    return tracked_as(task, jobs, job_type, on_lost)


def tracked_as(task: Any, jobs: Jobs | AsyncJobs | None, job_type: str | None, on_lost: str | None) -> Any:
    """The plain form of `tracked`."""
    if not isinstance(task, celery.Task):
        raise InvalidInput("task", f"{task!r:.60} is no Celery task; write @tracked above @app.task, not below it")
    handing = (jobs if jobs is not None else _jobs_of(task.app)).handing
    if handing is None or not isinstance(handing.engine, CeleryEngine):
        raise InvalidInput("jobs", "has no CeleryEngine: Jobs(url, engine=CeleryEngine(app))")
    known = Tracked(task, handing, handing.engine, job_type or task.name, on_lost)
    handing.engine.tracked[known.job_type] = known
    return task


class Tracked:
    """One task under `@tracked`: its run goes through a delivery, and what is sent of it is recorded."""

    def __init__(self, task: Any, handing: Handing, engine: CeleryEngine, job_type: str, on_lost: str | None) -> None:
        self.task = task
        self.job_type = job_type_text(job_type)
        self._handing = handing
        self._engine = engine
        self._on_lost = on_lost or ("retry" if task.acks_late else "fail")
        self._inner = task.run  # with its autoretry, which is decided when it leaves this
        self._doc = doc_of(task)
        task.run = self._run
        signals.before_task_publish.connect(self._on_publish, sender=task.name, weak=False)

    @property
    def type(self) -> JobType:
        """What its workers publish of it."""
        return JobType(
            self.job_type,
            self._doc,
            ARGUMENTS,
            max_attempts=ATTEMPTS,
            on_lost=self._on_lost,
            engine=self._engine.name,
        )

    def send(self, job: Job) -> None:
        """Send its message: one more for the same task id, which a worker that has killed it would not take any more."""
        params = job.params or {}
        task_id = job.metadata.get("celery_id") if job.metadata and job.receipt is None else None
        headers = {HEADER: job.job_id}
        self.task.apply_async(params.get("args"), params.get("kwargs"), task_id=task_id, headers=headers, retry=False)

    def _on_publish(self, headers: dict[str, Any], body: Any, **_: Any) -> None:
        """A message is about to be sent: record its job. Reporting breaks no work: at the worst it is recorded later."""
        if headers.get("retries") or HEADER in headers:
            return
        job_id = _job_id(headers["id"])
        wait = self._engine.lost_after
        if headers.get("eta"):
            when = maybe_make_aware(
                datetime.fromisoformat(headers["eta"]), self.task.app.timezone
            )  # as its worker does
            wait += max(0.0, (when - datetime.now(UTC)).total_seconds())
        try:
            store = self._handing.app.store.twin(blocking=True)
            drive(store.apply([self._birth(job_id, headers["id"], body[0], body[1], int(wait * 1_000_000))]))
            headers[HEADER] = job_id
        except (StoreError, Refused) as error:
            log.warning("task %s[%s] is not recorded yet: %s", self.task.name, headers["id"], error)

    def _birth(self, job_id: str, task_id: str, args: Any, kwargs: Any, again: int | None = None) -> Write:
        known: dict[str, Any] = {"metadata": {"celery_id": task_id}, "max_attempts": ATTEMPTS, "on_lost": self._on_lost}
        try:
            params = {"args": list(args), "kwargs": dict(kwargs)}
            fields = submit_fields(self.job_type, params=params, engine=self._engine.name, **known)
        except InvalidInput:  # arguments that are not JSON, or too much of it: only Celery can send them (again)
            known["on_lost"] = "fail"
            fields = submit_fields(self.job_type, params=None, engine=self._engine.name, **known)
            del fields["hand_over"]
        return Write(job_id, plan_create(fields, new_op(), again), answer=False)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        request = self.task.request
        if request.called_directly:
            return self._inner(*args, **kwargs)
        job_id = job_id_of(request)
        births = [] if request.get(HEADER) else [self._birth(job_id, request.id, args, kwargs)]
        outcome: list[Any] = []

        def code(run: Run) -> Any:
            try:
                outcome.append(self._inner(*args, **kwargs))
            except Ignore as ignored:
                outcome.append(ignored)
                return None
            except Reject as given_back:
                raise JobReleased(str(given_back)) from given_back
            return outcome[0]

        def run(message: Message) -> Any:
            app, engine = self._handing.app, self._engine
            Delivery(app, engine, job_id, message=message, births=births, decides=_decides, as_text=True).execute(code)
            if isinstance(outcome[0], Ignore):
                raise outcome[0]
            return outcome[0]

        return self._engine.told(self.task, run)


def _decides(error: BaseException) -> EngineRetry | None:
    if not isinstance(error, CeleryRetry):
        return None
    when = error.when
    delay = (when - datetime.now(when.tzinfo)).total_seconds() if isinstance(when, datetime) else float(when or 0)
    return EngineRetry(error.exc if isinstance(error.exc, BaseException) else error, max(0.0, delay))


def job_id_of(request: Any) -> str:
    """The job of a message that a worker has."""
    named = request.get(HEADER)
    return str(named) if named else _job_id(request.id)


def _job_id(task_id: str) -> str:
    """A task's id as that of its job; one that cannot be is digested."""
    try:
        return job_id_text(task_id)
    except InvalidInput:
        return f"celery-{blake2b(str(task_id).encode(), digest_size=12).hexdigest()}"


_applications: WeakKeyDictionary[Any, Jobs] = WeakKeyDictionary()


def _jobs_of(app: Any) -> Jobs:
    """The jobs of a Celery application that has not been given any: those of the environment's store."""
    found = _applications.get(app)
    if found is None:
        found = _applications[app] = Jobs(engine=CeleryEngine(app))
    return found


__all__ = ["CeleryEngine", "current_run", "tracked"]
