"""`@tracked`: an existing Celery task gets a job record, a run, progress and cancel."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, overload
from weakref import WeakKeyDictionary

import celery
from celery import signals
from celery.exceptions import Ignore, Reject
from celery.exceptions import Retry as CeleryRetry
from celery.utils.time import maybe_make_aware

from milepost.app import AsyncJobs, Jobs
from milepost.core.defaults import ATTEMPTS_MAX
from milepost.core.errors import InvalidInputError, JobReleased, RejectedError, StoreError
from milepost.core.job import Job, JobStatus
from milepost.core.serialization import to_micros, validate_job_type
from milepost.core.transitions import plan_create
from milepost.integrations.celery.message import (
    HEADER,
    Recorder,
    TaskMessage,
    job_id_for_reuse,
    job_id_of_request,
    job_id_of_task,
    longest_delay,
    needs_outcome,
    outcome_of,
    postpone,
    result_for_celery,
)
from milepost.integrations.celery.task_queue import CeleryTaskQueue, Message, show_revoked
from milepost.manager.validation import submit_fields
from milepost.run.run import Run
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync
from milepost.worker.dispatcher import Dispatcher
from milepost.worker.message_execution import MessageExecution, NotDelivered, TaskQueueRetry
from milepost.worker.registry import JobType, doc_of

log = logging.getLogger("milepost.task_queue")

RETRY_MESSAGE = "milepost_retry"
"""The request attribute with the message of its retry, until the run has ended."""
RETRY_SECONDS = 1.0
"""Seconds that a retry message waits for the attempt that sent it to end."""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_is_sending: ContextVar[bool] = ContextVar("milepost_is_sending", default=False)
"""Whether the message being published belongs to a recorded job."""

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
    """Give a task a record, a run (`current_run()`), progress and cancellation; place it above ``@app.task``.

    Each call is a job of type `job_type` (default: the task's name) with the task's id. Celery handles retries. `on_lost`
    decides about a job whose worker died: by default it runs again if the task acknowledges late, else it fails. `jobs`
    selects the store (default: from the environment). Raises InvalidInputError for an object that is not a task.
    """
    if task is None:
        return lambda task: _track_task(task, jobs, job_type, on_lost)
    return _track_task(task, jobs, job_type, on_lost)


def _track_task(task: Any, jobs: Jobs | AsyncJobs | None, job_type: str | None, on_lost: str | None) -> Any:
    if not isinstance(task, celery.Task):
        raise InvalidInputError("task", f"{task!r:.60} is not a Celery task; place @tracked above @app.task")
    dispatcher = (jobs if jobs is not None else _jobs_of(task.app)).dispatcher
    if dispatcher is None or not isinstance(dispatcher.task_queue, CeleryTaskQueue):
        raise InvalidInputError("jobs", "requires a CeleryTaskQueue: Jobs(url, task_queue=CeleryTaskQueue(app))")
    known = Tracked(task, dispatcher, dispatcher.task_queue, job_type or task.name, on_lost)
    dispatcher.task_queue.tracked[known.job_type] = known
    return task


class Tracked:
    """A task with `@tracked`: calls are recorded before their message is sent, and run under a lease."""

    def __init__(
        self, task: Any, dispatcher: Dispatcher, task_queue: CeleryTaskQueue, job_type: str, on_lost: str | None
    ) -> None:
        self.task = task
        self.job_type = validate_job_type(job_type)
        self._dispatcher = dispatcher
        self._task_queue = task_queue
        self._on_lost = on_lost or ("retry" if task.acks_late else "fail")
        self._inner = task.run  # with its autoretry, which is decided when an error leaves this
        self._doc = doc_of(task)
        self._schema = schema_of(task)
        self._recorder = Recorder()
        task.run = self._run
        signals.before_task_publish.connect(self._on_publish, sender=task.name, weak=False)

    @property
    def type(self) -> JobType:
        """Return the type as its workers publish it."""
        return JobType(
            self.job_type,
            self._doc,
            self._schema,
            max_attempts=ATTEMPTS_MAX,
            on_lost=self._on_lost,
            task_queue=self._task_queue.name,
        )

    # --- sending ---

    def send(self, job: Job) -> None:
        """Send the message of a job, unchanged if it was sent before. Raises InvalidInputError, kombu's errors.

        A stopped job gets a new task id, because workers do not accept a task id that they have revoked.
        """
        headers: dict[str, Any] = {HEADER: job.job_id}
        kept = job.record.get("queue_message")
        if kept is not None:
            if job.receipt is not None:
                headers["id"] = celery.uuid()
            TaskMessage.of_text(kept).send(self.task.app, serializer="json", **headers)
            return
        params = job.params or {}
        task_id = None if job.receipt is not None else (job.metadata or {}).get("celery_id", job.job_id)
        token = _is_sending.set(True)
        try:
            self.task.apply_async(
                params.get("args"), params.get("kwargs"), task_id=task_id, headers=headers, retry=False
            )
        except TypeError as error:
            raise InvalidInputError("params", str(error)) from None
        finally:
            _is_sending.reset(token)

    def _on_publish(
        self, headers: dict[str, Any], body: Any, exchange: Any, routing_key: Any, properties: dict[str, Any], **_: Any
    ) -> None:
        """Record the job before its message is sent. If that fails, the delivery records it."""
        task_id, request = headers["id"], self.task.request
        message = TaskMessage.of_publish(headers, body, exchange, routing_key, properties)
        if headers.get("retries") and request.id == task_id and not request.called_directly:
            headers[HEADER] = job_id_of_request(request)
            setattr(request, RETRY_MESSAGE, self._text(message))
            return
        if _is_sending.get():
            return
        wait = self._task_queue.lost_after
        fields = self._fields(task_id, body[0], body[1], message)
        if headers.get("eta"):
            # interpreted as its worker does
            when = maybe_make_aware(datetime.fromisoformat(headers["eta"]), self.task.app.timezone)
            wait += max(0.0, (when - datetime.now(UTC)).total_seconds())
            fields["message_at"] = str(to_micros(when, "eta"))
        job_id = job_id_of_task(task_id, int(headers.get("replaced_task_nesting") or 0))
        try:
            headers[HEADER] = self._recorder.record(lambda: self._create(job_id, fields, int(wait * 1_000_000)))
        except (StoreError, RejectedError) as error:
            headers.pop(HEADER, None)
            log.warning("task %s[%s]: not recorded yet: %s", self.task.name, task_id, error)

    def _create(self, job_id: str, fields: dict[str, str], again: int) -> str:
        """Create the job of a message, with a new id if the job of its task id has ended or is another call.

        If that job is the same call and has not ended, the message belongs to it: a sender that does not know whether its
        message was sent may send it again.
        """
        store = self._dispatcher.app.store.with_blocking(blocking=True)
        outcome = run_sync(
            store.apply([Write(job_id, plan_create(fields, new_operation_id(), again), answer=False)])
        ).outcomes[0]
        if outcome.accepted or outcome.job is None:
            return job_id
        if not outcome.job.is_terminal and _is_same_call(outcome.job, fields):
            text = "task %s[%s]: its job is %s, so this message starts no other run; use a new task id for each call"
            log.warning(text, self.task.name, job_id, outcome.job.status)
            return job_id
        job_id = job_id_for_reuse(job_id)
        run_sync(store.apply([Write(job_id, plan_create(fields, new_operation_id(), again), answer=False)]))
        return job_id

    def _fields(self, task_id: str, args: Any, kwargs: Any, message: TaskMessage) -> dict[str, str]:
        """Return the fields of a new record. A message that cannot be stored is only sent again by its broker."""
        on_lost = self._on_lost
        kept = self._text(message)
        if kept is None and not self.task.acks_late:
            on_lost = "fail"
        known: dict[str, Any] = {
            "task_queue": self._task_queue.name,
            "metadata": {"celery_id": task_id},
            "max_attempts": ATTEMPTS_MAX,
            "on_lost": on_lost,
            **message.relations,
        }
        try:
            params = {"args": list(args), "kwargs": dict(kwargs)}
            fields = submit_fields(self.job_type, params=params, **known)
        except InvalidInputError:  # arguments that are not JSON or too large
            fields = submit_fields(self.job_type, params=None, **known)
        if kept is None:
            del fields["dispatch_after"]
        else:
            fields["queue_message"] = kept
        return fields

    def _text(self, message: TaskMessage) -> str | None:
        return message.text() if self.task.serializer == "json" else None

    # --- running ---

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        if self.task.request.called_directly:
            return self._inner(*args, **kwargs)
        return self._task_queue.run_delivery(self.task, lambda message: self._deliver(message, args, kwargs))

    def _deliver(self, message: Message, args: Any, kwargs: Any) -> Any:
        request = self.task.request
        job_id, create_writes = job_id_of_request(request), []
        if not request.get(HEADER):
            fields = self._fields(request.id, args, kwargs, TaskMessage.of_request(request))
            create_writes = [Write(job_id, plan_create(fields, new_operation_id()), answer=False)]
        until = time.monotonic() + RETRY_SECONDS
        while True:
            try:
                return self._execute(job_id, message, create_writes, args, kwargs)
            except NotDelivered as refused:
                job = refused.job
                if create_writes and job is not None and job.is_terminal and not _is_redelivered(request):
                    # A sender without milepost has used the task id again.
                    job_id = job_id_for_reuse(job_id)
                    create_writes = [Write(job_id, plan_create(fields, new_operation_id()), answer=False)]
                elif request.retries and job is not None and not job.is_terminal and time.monotonic() < until:
                    time.sleep(0.05)  # the attempt that sent this retry is about to end
                else:
                    return self._not_run(job)

    def _execute(self, job_id: str, message: Message, create_writes: list[Write], args: Any, kwargs: Any) -> Any:
        request = self.task.request
        setattr(request, HEADER, job_id)
        outcome: list[Any] = []
        rejections: list[Reject] = []

        def code(run: Run) -> Any:
            try:
                outcome.append(self._inner(*args, **kwargs))
            except Ignore as ignored:
                outcome.append(ignored)
                return None
            except Reject as rejected:
                if not rejected.requeue:
                    raise
                rejections.append(rejected)
                raise JobReleased(str(rejected)) from rejected
            return outcome[0]

        def recreate() -> list[Write]:
            fields = self._fields(request.id, args, kwargs, TaskMessage.of_request(request))
            return [Write(job_id, plan_create(fields, new_operation_id()), answer=False)]

        delivery = MessageExecution(
            self._dispatcher.app,
            self._task_queue,
            job_id,
            message=message,
            create_writes=create_writes,
            recreate=recreate,
            decides=self._retry_decision,
            queue_result=result_for_celery,
        )
        try:
            delivery.execute(code)
        except JobReleased:
            if not rejections:  # the store is unavailable
                postpone(self.task, self._delay(), **{HEADER: job_id})
            if "queue_message" not in delivery.record:  # no other process can send it again
                postpone(self.task, 0.0, **{HEADER: job_id})
            raise
        if isinstance(outcome[0], Ignore):
            raise outcome[0]
        return outcome[0]

    def _not_run(self, job: Job | None) -> Any:
        """Tell Celery the outcome of a message whose job does not run in this delivery."""
        task, request = self.task, self.task.request
        if job is None or job.status is JobStatus.CANCELLED:
            if job is None:
                log.warning("task %s[%s]: job was deleted", task.name, request.id)
            show_revoked(task)
            raise Ignore
        if not job.is_terminal:
            # It runs, or its last run has not stopped yet. If that worker dies, this is the only message left.
            log.info("task %s[%s]: job %s is %s, retrying later", task.name, request.id, job.job_id, job.status)
            postpone(task, self._delay(), expires=None, **{HEADER: job.job_id})
        if not needs_outcome(task):
            raise Ignore
        log.info("task %s[%s]: returning the recorded outcome (%s)", task.name, request.id, job.status)
        return outcome_of(job)

    def _delay(self) -> float:
        return longest_delay(self.task.app, self._dispatcher.app.settings.lease)

    def _retry_decision(self, error: BaseException) -> TaskQueueRetry | None:
        if not isinstance(error, CeleryRetry):
            return None
        when = error.when
        delay = (when - datetime.now(when.tzinfo)).total_seconds() if isinstance(when, datetime) else float(when or 0)
        cause = error.exc if isinstance(error.exc, BaseException) else error
        return TaskQueueRetry(cause, max(0.0, delay), self.task.request.get(RETRY_MESSAGE))


def schema_of(task: Any) -> dict[str, Any]:
    """Return the schema of ``{"args": [...], "kwargs": {...}}``, from the signature if the task checks arguments."""
    args: dict[str, Any] = {"type": "array"}
    kwargs: dict[str, Any] = {"type": "object"}
    if task.typing:
        parameters = inspect.signature(task.run).parameters.values()
        kinds = {parameter.kind for parameter in parameters}
        if inspect.Parameter.VAR_POSITIONAL not in kinds:
            args["maxItems"] = sum(parameter.kind in _PLACED for parameter in parameters)
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            kwargs["properties"] = {parameter.name: {} for parameter in parameters if parameter.kind in _NAMED}
            kwargs["additionalProperties"] = False
    return {"type": "object", "properties": {"args": args, "kwargs": kwargs}, "additionalProperties": False}


def _is_same_call(job: Job, fields: dict[str, str]) -> bool:
    """Return whether a job has the arguments of a message, or if either is not stored."""
    known, given = job.record.get("params"), fields.get("params")
    return known is None or given is None or known == given


def _is_redelivered(request: Any) -> bool:
    return bool((request.delivery_info or {}).get("redelivered"))


_applications: WeakKeyDictionary[Any, Jobs] = WeakKeyDictionary()


def _jobs_of(app: Any) -> Jobs:
    """Return the Jobs of a Celery application without one: the store from the environment."""
    found = _applications.get(app)
    if found is None:
        found = _applications[app] = Jobs(task_queue=CeleryTaskQueue(app))
    return found
