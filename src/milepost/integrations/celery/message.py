"""The message of a Celery task: recorded before it is sent, sent again unchanged, postponed, or answered from the record.

`Recorder` does not block `delay()` while the store is unavailable.
"""

from __future__ import annotations

import builtins
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from queue import SimpleQueue
from typing import Any, NamedTuple, NoReturn

from celery.exceptions import Ignore, Reject
from celery.states import READY_STATES
from celery.utils.serialization import create_exception_cls
from kombu.exceptions import EncodeError, OperationalError
from kombu.utils import json

from milepost.core.errors import InvalidInputError, StoreError, StoreUnavailableError
from milepost.core.job import Job, JobStatus
from milepost.core.serialization import CHECKPOINT_BYTES, validate_job_id, validate_key
from milepost.stores.ids import new_nonce

HEADER = "milepost"
"""The message header with the job id."""
MAX_KEPT_BYTES = CHECKPOINT_BYTES
"""Longer messages are not stored, and only the broker can deliver them again."""
GROUP_BYTES = 128
_HEADERS = (
    "lang", "task", "id", "shadow", "expires", "group", "group_index", "retries", "timelimit", "root_id", "parent_id",
    "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps",
)  # fmt: skip
_BROKER_PROPERTIES = ("redelivered", "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason")


class TaskMessage(NamedTuple):
    """The message of one task: body (arguments, callbacks, errbacks, chain, chord), headers and routing."""

    headers: dict[str, Any]
    body: Any
    exchange: str
    routing_key: str
    properties: dict[str, Any]

    @classmethod
    def of_publish(
        cls, headers: dict[str, Any], body: Any, exchange: Any, routing_key: Any, properties: dict[str, Any]
    ) -> TaskMessage:
        """Return the message of a `before_task_publish` signal."""
        return cls(headers, body, getattr(exchange, "name", exchange) or "", routing_key or "", properties)

    @classmethod
    def of_request(cls, request: Any) -> TaskMessage:
        """Return the message of a request in a worker."""
        headers = {name: request.get(name) for name in _HEADERS}
        custom = {name: value for name, value in (request.headers or {}).items() if name not in _BROKER_PROPERTIES}
        embed = {name: request.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
        delivery = request.delivery_info or {}
        properties = {"correlation_id": request.correlation_id or request.id, "reply_to": request.reply_to or ""}
        if delivery.get("priority") is not None:
            properties["priority"] = delivery["priority"]
        body = (list(request.args or ()), dict(request.kwargs or {}), embed)
        return cls(
            {**custom, **headers}, body, delivery.get("exchange") or "", delivery.get("routing_key") or "", properties
        )

    @classmethod
    def of_text(cls, text: str) -> TaskMessage:
        """Return a stored message."""
        return cls(*json.loads(text))  # type: ignore[no-untyped-call]

    @property
    def relations(self) -> dict[str, str]:
        """Return `parent_id`, the job of the task that sent this one or comes before it in a chain, and `group`."""
        parent, group = self.headers.get("parent_id"), self.headers.get("group")
        found = {"parent_id": job_id_of_task(parent)} if parent else {}
        try:
            return {**found, "group": validate_key(group, "group", GROUP_BYTES)} if group else found
        except InvalidInputError:
            return found  # an id that the application chose, too long for a group

    def text(self) -> str | None:
        """Return the message as one line of JSON, or None if it is too long or not JSON."""
        try:
            text: str = json.dumps(list(self))  # type: ignore[no-untyped-call]
        except (TypeError, ValueError, RecursionError, EncodeError):
            return None
        return text if len(text) <= MAX_KEPT_BYTES else None

    def send(
        self, app: Any, *, serializer: str, eta: datetime | None = None, retry: bool = False, **headers: Any
    ) -> None:
        """Publish the message with updated `headers`, to run at `eta`. Raises kombu's OperationalError, OSError."""
        changed = {**self.headers, **headers}
        if eta is not None:
            changed["eta"] = eta.isoformat()
        properties = {**self.properties, "correlation_id": changed["id"]}
        with app.producer_or_acquire() as producer:
            producer.publish(
                self.body,
                serializer=serializer,
                headers=changed,
                exchange=self.exchange,
                routing_key=self.routing_key,
                declare=self._queues(app),
                retry=retry,
                **properties,
            )

    def _queues(self, app: Any) -> list[Any]:
        """Return the queues to declare, without which the broker would drop the message."""
        if not self.exchange:
            return [app.amqp.queues[self.routing_key]]
        return [
            queue
            for queue in app.amqp.queues.values()
            if queue.exchange.name == self.exchange and queue.routing_key == self.routing_key
        ]


def job_id_of_task(task_id: str, replaced: int = 0) -> str:
    """Return the job id of a task: its task id, or a digest of it if it is not a valid job id.

    `replaced` is how often the task called `replace()`; the replacement has the same task id.
    """
    try:
        job_id = validate_job_id(task_id)
    except InvalidInputError:
        job_id = f"celery-{blake2b(str(task_id).encode(), digest_size=12).hexdigest()}"
    return f"{job_id[:120]}.{replaced}" if replaced else job_id


def job_id_of_request(request: Any) -> str:
    """Return the job id of a message in a worker."""
    named = request.get(HEADER)
    return str(named) if named else job_id_of_task(request.id, int(request.get("replaced_task_nesting") or 0))


def job_id_for_reuse(job_id: str) -> str:
    """Return a new job id for a task id that is used again, after its job has ended or for another call."""
    return f"{job_id[:100]}.{new_nonce()}"


log = logging.getLogger("milepost.task_queue")

BROKER_RETRY_DELAY = 60.0
"""Seconds that a postponed message is held while the broker does not accept it."""
RESULT_NOT_KEPT = '"-"'
"""The recorded Celery result if it cannot be written as Celery JSON."""


def postpone(task: Any, seconds: float, **headers: Any) -> NoReturn:
    """Send the message of `task` again, to run in `seconds`, and end this delivery.

    The new message keeps task id, callbacks, workflow position and retries. The delivered message is acknowledged only
    afterwards.
    """
    eta = datetime.now(UTC) + timedelta(seconds=seconds)
    until = time.monotonic() + BROKER_RETRY_DELAY
    while True:
        try:
            message = TaskMessage.of_request(task.request)
            message.send(task.app, serializer=task.serializer, eta=eta, retry=True, **headers)
        except (OperationalError, OSError) as error:
            log.warning("task %s[%s]: broker unavailable, holding its message: %s", task.name, task.request.id, error)
            if time.monotonic() > until:
                raise Reject(str(error), requeue=True) from error
            threading.Event().wait(1.0)
        else:
            raise Ignore


def longest_delay(app: Any, seconds: float) -> float:
    """Return `seconds`, or half the broker's visibility timeout if that is shorter."""
    visible = (app.conf.broker_transport_options or {}).get("visibility_timeout")
    return seconds if not visible else max(0.5, min(seconds, float(visible) / 2))


def needs_outcome(task: Any) -> bool:
    """Return whether anything waits for the outcome of the message of `task`.

    Celery continues chains and calls links before it stores a result, so a stored result means that these are done. Only
    a chord counts a member after its result is stored.
    """
    request = task.request
    if task.ignore_result or request.ignore_result:
        return bool(request.callbacks or request.errbacks or request.chain or request.chord)
    try:
        known = task.AsyncResult(request.id).state in READY_STATES
        if known and request.chord:
            body_id = (request.chord.get("options") or {}).get("task_id")
            return bool(body_id) and task.AsyncResult(body_id).state not in READY_STATES
    except Exception as error:  # noqa: BLE001 - without a result backend Celery raises AttributeError and others
        log.debug("task %s[%s]: result backend unavailable: %s", task.name, request.id, error)
        return bool(request.callbacks or request.errbacks or request.chain or request.chord)
    return not known


def outcome_of(job: Job) -> Any:
    """Return the recorded result of a completed job, or raise the recorded error of a failed one."""
    if job.status is JobStatus.FAILED:
        raise recorded_error(job)
    kept = job.record.get("queue_result")
    if kept is not None and kept != RESULT_NOT_KEPT:
        return json.loads(kept)  # type: ignore[no-untyped-call]
    if job.result_error is not None:
        log.error("job %s: giving Celery the text of its result (%s)", job.job_id, job.result_error)
        return job.result_text
    return job.result


def recorded_error(job: Job) -> Exception:
    """Return the recorded error of a failed job as an exception with the same class name."""
    kind = (job.failure.type if job.failure is not None else None) or "JobFailed"
    module, _, name = kind.rpartition(".")
    known = getattr(builtins, name, None) if not module else None
    text = job.error or str(job.status)
    if isinstance(known, type) and issubclass(known, Exception):
        try:
            return known(text)
        except TypeError:  # e.g. UnicodeDecodeError, which needs more arguments
            pass
    return create_exception_cls(name, module or __name__)(text)  # type: ignore[no-any-return]


def result_for_celery(result: Any) -> str | None:
    """Return a result as Celery JSON if plain JSON would not restore it, else None."""
    try:
        text = str(json.dumps(result))  # type: ignore[no-untyped-call]
    except (TypeError, ValueError, RecursionError):
        return RESULT_NOT_KEPT
    return text if '"__type__"' in text else None


RECORD_SECONDS = 1.0
"""Seconds that a caller of `delay()` waits for the store."""
SKIP_SECONDS = 5.0
"""Seconds after a timeout during which callers do not wait for the store."""


class _Work:
    """One record to write, and the outcome."""

    def __init__(self, write: Callable[[], str]) -> None:
        self.write = write
        self.done = threading.Event()
        self.job_id = ""
        self.error: Exception | None = None

    def run(self) -> None:
        """Write the record."""
        try:
            self.job_id = self.write()
        except Exception as error:  # noqa: BLE001 - raised again in the caller's thread
            self.error = error
        self.done.set()


class Recorder:
    """Writes records in a thread, so that callers can stop waiting."""

    def __init__(self) -> None:
        self._queues: dict[int, SimpleQueue[_Work]] = {}
        """Queues by pid, because a forked process needs its own thread."""
        self._skip_until = 0.0

    def record(self, write: Callable[[], str]) -> str:
        """Run `write` and return its job id, within about a second. Raises StoreError.

        A slower write continues in the thread. The message is then sent without a record, and its delivery creates it.
        """
        if time.monotonic() < self._skip_until:
            raise StoreUnavailableError("the store did not respond a moment ago")
        work = _Work(write)
        self._queue().put(work)
        if not work.done.wait(RECORD_SECONDS):
            self._skip_until = time.monotonic() + SKIP_SECONDS
            raise StoreUnavailableError(f"the store did not respond within {RECORD_SECONDS:g} s")
        if work.error is not None:
            if isinstance(work.error, StoreError):
                self._skip_until = time.monotonic() + SKIP_SECONDS
            raise work.error
        return work.job_id

    def _queue(self) -> SimpleQueue[_Work]:
        pid = os.getpid()
        queue = self._queues.get(pid)
        if queue is None:
            mine: SimpleQueue[_Work] = SimpleQueue()
            queue = self._queues.setdefault(pid, mine)
            if queue is mine:
                threading.Thread(target=_write, args=(queue,), name="milepost-recorder", daemon=True).start()
        return queue


def _write(queue: SimpleQueue[_Work]) -> None:
    while True:
        queue.get().run()
