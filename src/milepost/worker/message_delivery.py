"""Handles the messages of an external task queue: runs the job, or requeues the message during an outage.

A message that is dropped silently leaves its job waiting for `TaskQueue.lost_after`. So a delivery that ends before the
job has started always leaves either a message or a note in the record.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from milepost.core.errors import InvalidInputError, Snooze, StoreError
from milepost.core.transitions import plan_undispatchable
from milepost.run.process_identity import process_name
from milepost.run.run import Run
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import run_sync
from milepost.worker.dispatcher import TaskQueue, TaskQueueUnavailableError
from milepost.worker.handlers import Application, Handler
from milepost.worker.message_execution import BadParametersError, MessageExecution, NotDelivered
from milepost.worker.registry import delay_for_newer_release

log = logging.getLogger("milepost.task_queue")

NO_HANDLER_RETRY_MICROS = 30_000_000
REQUEUE_DELAY = 5.0


class _LeftToNewerRelease(Snooze):
    """The job waits for a worker of a newer release, which accepts its parameters."""


def deliver(app: Application, task_queue: TaskQueue, job_id: str, job_type: str, message: Any = None) -> Any:
    """Run a delivered job by its handler in this thread, an async handler in a new event loop, and return its result.

    If the store is unavailable, the message is requeued and this raises NotDelivered.
    """
    while True:
        delivery = MessageExecution(app, task_queue, job_id, message=message)
        try:
            return _run(app, delivery, job_id, job_type)
        except _LeftToNewerRelease:
            raise NotDelivered(None) from None
        except BaseException as error:
            if not _needs_message(delivery, task_queue, error):
                raise
            _end_or_repeat(error, requeue(task_queue, job_id, job_type, error))


async def adeliver(app: Application, task_queue: TaskQueue, job_id: str, job_type: str, *, store: Store) -> Any:
    """Run a delivered job in an event loop, over an async `store`; a sync handler runs in a thread."""
    handler = app.handlers.get(job_type)
    if handler is None or not handler.is_async:
        return await asyncio.to_thread(deliver, app, task_queue, job_id, job_type)

    async def code(run: Run) -> Any:
        return await handler.function(run, **await _checked_params(store, handler, run))

    hooks = handler.type_options.hooks
    while True:
        delivery = MessageExecution(app, task_queue, job_id, store=store)
        delivery.run_type = handler.run_type
        try:
            try:
                return await delivery.aexecute(code)
            finally:
                if hooks is not None:
                    for reply in delivery.replies:
                        await hooks.acall(reply, delivery.run.attempt)
        except _LeftToNewerRelease:
            raise NotDelivered(None) from None
        except BaseException as error:
            if not _needs_message(delivery, task_queue, error):
                raise
            _end_or_repeat(error, await asyncio.to_thread(requeue, task_queue, job_id, job_type, error))


def _run(app: Application, delivery: MessageExecution, job_id: str, job_type: str) -> Any:
    handler = app.handlers.get(job_type)
    if handler is None:
        run_sync(_mark_undispatchable(delivery.heartbeat.store, job_id, job_type))
        raise NotDelivered(None)

    def code(run: Run) -> Any:
        return handler.function(run, **run_sync(_checked_params(delivery.heartbeat.store, handler, run)))

    hooks = handler.type_options.hooks
    delivery.run_type = handler.run_type
    try:
        return delivery.execute(code, is_async=handler.is_async)
    finally:
        if hooks is not None:
            for reply in delivery.replies:
                hooks.call(reply, delivery.run.attempt)


def _needs_message(delivery: MessageExecution, task_queue: TaskQueue, error: BaseException) -> bool:
    """Return whether an outage of the store, or the end of its worker, ended a delivery before the job has started."""
    if delivery.has_started:
        return False
    return isinstance(error, StoreError) or not isinstance(error, Exception) or task_queue.is_exit(error)


def _end_or_repeat(error: BaseException, is_requeued: bool) -> None:
    """Raise what ends a delivery that needs its message; return if only repeating the delivery is left."""
    if not isinstance(error, StoreError):
        raise error
    if is_requeued:
        raise NotDelivered(None) from error


def requeue(task_queue: TaskQueue, job_id: str, job_type: str, why: BaseException) -> bool:
    """Send the message again; return whether the task queue has it."""
    try:
        task_queue.requeue(job_id, job_type, REQUEUE_DELAY)
    except TaskQueueUnavailableError as error:
        log.warning("job %s: message not requeued: %s", job_id, error)
        return False
    log.warning("job %s: message requeued: %s", job_id, str(why) or type(why).__name__)
    return True


async def _checked_params(store: Store, handler: Handler[Any, Any], run: Run) -> dict[str, Any]:
    """Return the arguments of a handler. Raises BadParametersError, or a Snooze if a newer release accepts them."""
    try:
        return handler.parameters.of(run._job.record)
    except InvalidInputError as error:
        bad = BadParametersError(error.field, error.problem)
    except ValueError as error:
        bad = BadParametersError("params", str(error))
    delay = await delay_for_newer_release(store, handler, run._job)
    if delay is None:
        raise bad
    log.warning("job %s (%s): left to a newer release: %s", run.job_id, run.job_type, bad)
    raise _LeftToNewerRelease(delay)


async def _mark_undispatchable(store: Store, job_id: str, job_type: str) -> None:
    """Let the job wait, with a reason: another worker may have the handler."""
    reason = f"{process_name().split(':')[0]} has no handler for {job_type!r}"
    log.warning("job %s: %s", job_id, reason)
    await store.apply(
        [Write(job_id, plan_undispatchable(new_operation_id(), NO_HANDLER_RETRY_MICROS, reason), answer=False)]
    )
