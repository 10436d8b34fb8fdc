"""The message of a Celery task, stored in the record so that it can be sent again unchanged, and the id of its job."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from kombu.exceptions import EncodeError
from kombu.utils import json

from milepost.core.errors import InvalidInputError
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
    """Return a new job id for a task id that is used again after its job has ended."""
    return f"{job_id[:100]}.{new_nonce()}"
