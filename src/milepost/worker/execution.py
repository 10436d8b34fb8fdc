"""The execution of one claimed job, as a task of the worker's event loop or in a thread."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

from milepost.core.errors import (
    BudgetExceededError,
    InvalidInputError,
    JobCancelled,
    JobReleased,
    RunStop,
    StoreError,
)
from milepost.core.job import FailureKind, Job
from milepost.run.budget_question import ask_to_raise
from milepost.run.checkpoints import StoreCheckpointWriter
from milepost.run.execution import LeasedExecution
from milepost.run.heartbeat_state import PendingReport
from milepost.run.outcome import RunOutcome, postponed
from milepost.run.run import Run
from milepost.run.transaction import wait_until_over
from milepost.run.usage import BudgetSpent, budget_holders, refusal_at_start
from milepost.worker.handlers import Handler
from milepost.worker.registry import delay_for_newer_release

if TYPE_CHECKING:
    from milepost.worker.worker_loop import WorkerLoop

log = logging.getLogger("milepost.worker")

LOOP_ENDED = "worker's event loop ended"


class Execution(LeasedExecution):
    """The execution of one claimed job. `begin` it once; `stop` tells its code to stop."""

    interrupt_cancels = False

    def __init__(self, host: WorkerLoop, job: Job, handler: Handler[Any, Any], claimed_at: float) -> None:
        super().__init__(host.settings.captures, host.settings.redact)
        self.host = host
        self.heartbeat = host.heartbeat
        self.job = job
        self.handler = handler
        self.record = job.record
        self.token = self.record["token"]
        self.sent_at = claimed_at
        self.is_abandoned = False
        self._timers: list[asyncio.TimerHandle] = []
        self.run = self._make_run()
        self.run._can_suspend = self.record.get("run_by") == "worker"
        hooks = handler.type_options.hooks
        if hooks is not None:
            self.on_reply = lambda reply: host.hooks.start(hooks, reply, job.attempt)

    def _make_run(self) -> Run:
        return self.handler.run_type(
            self.job, self.token, StoreCheckpointWriter(self.host.store, self.host.heartbeat, until_stopped=True)
        )

    def enter(self) -> None:
        """Let the heartbeat renew the lease."""
        self.heartbeat.add(self.run, self.on_outage, self.sent_at)

    def begin(self) -> None:
        """Start the code. Called in the worker's event loop, after `enter`."""
        self.start_timeout()
        try:
            params = self.handler.parameters.of(self.record)
        except Exception as error:  # noqa: BLE001 - user classes may raise anything
            self._refusal = self._create_task(self._refuse(error))
            return
        if budget_holders(self.job.job_id, self.record):
            self._refusal = self._create_task(self._start_within_budget(params))
        else:
            self._start(params)

    def _create_task(self, work: Coroutine[Any, Any, None], context: Context | None = None) -> asyncio.Task[None]:
        """Return a task. If the event loop ends, which cancels it, before the code has started, the job is given back."""
        task = self.host.loop.create_task(work, context=context)
        task.add_done_callback(self._on_task_end)
        return task

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() and self.run._started_in is None:
            self.how = "never_started"
            self.finish(JobReleased(LOOP_ENDED))

    async def _start_within_budget(self, params: dict[str, Any]) -> None:
        error: BaseException | None
        try:
            self.run._refuse_spent_budget()
            error = await refusal_at_start(self.host.store, self.run)
        except (BudgetExceededError, BudgetSpent) as spent:
            error = spent
        except StoreError as unavailable:
            log.warning("job %s: budget not checked at the start; continuing: %s", self.job.job_id, unavailable)
            error = None
        if error is None:
            self._start(params)
            return
        self.how = "never_started"
        if isinstance(error, BudgetSpent):
            try:
                error = await ask_to_raise(self.host.store, self.run, error.holder, None)
            except (RunStop, InvalidInputError, StoreError) as raised:
                error = raised
        self.finish(error)

    async def _refuse(self, error: Exception) -> None:
        """Leave the job to the workers of a newer release that accepts its parameters, or fail it."""
        delay = await delay_for_newer_release(self.host.store, self.handler, self.job)
        if delay is not None:
            log.warning("job %s (%s): left to a newer release: %s", self.job.job_id, self.job.job_type, error)
            self.leave(lambda pending: postponed(self.run, pending, int(delay * 1_000_000)))
        else:
            self.how = "never_started"
            self.finish(error, kind=FailureKind.BAD_PARAMETERS)

    def _start(self, params: dict[str, Any]) -> None:
        raise NotImplementedError

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        self._timers.append(self.host.loop.call_later(seconds, function))

    def stop(self, reason: RunStop) -> None:
        """Tell the code to stop, and end the run in the record if it has not stopped within the grace period."""
        super().stop(reason)
        self.call_later(self.host.settings.grace, self.force_stop)

    def force_stop(self) -> None:
        """End the run in the record without waiting for its code any longer."""
        if self.is_abandoned or not self.run._stop_reasons:
            return
        if self.run._transaction is not None:  # the write would wait for it
            self.host.threads.submit(self._force_stop_after_transaction)
            return
        end = self.abandonment()
        if end is not None:
            self.is_abandoned = True
            log.warning("job %s (%s): did not stop within the grace period", self.job.job_id, self.job.job_type)
            self.host.abandoned(self, end)

    def _force_stop_after_transaction(self) -> None:
        wait_until_over(self.heartbeat.store, self.run, "not ended after the grace period: its transaction is open")
        if not self.run._is_finishing:
            self.host.in_loop(self.force_stop)

    def retry_delay(self, error: BaseException) -> int | None:
        return self.handler.type_options.retry.delay(error, self.job.attempt)

    @property
    def _is_cancelled(self) -> bool:
        reasons = self.run._stop_reasons
        return bool(reasons) and isinstance(reasons[0], JobCancelled)

    def finish(self, error: BaseException | None, value: Any = None, kind: FailureKind = FailureKind.ERROR) -> None:
        """Remove the run from the heartbeat and pass its outcome to the worker. Never blocks the event loop."""
        result = self.result(error, value)
        delay = None
        if error is not None and kind is FailureKind.ERROR and not self._is_cancelled:
            delay = self.retry_delay(error)
        self.leave(lambda pending: self.outcome(pending, error, result, kind=kind, delay=delay))

    def leave(self, end_of: Callable[[PendingReport], RunOutcome]) -> None:
        """Remove the run from the heartbeat, without blocking, and pass its outcome to the worker."""
        self._cancel_timers()
        pending = self.heartbeat.try_remove(self.run)
        if pending is not None:
            self.host.ended(self, self.answered(end_of(pending)))
        else:
            self.host.threads.submit(
                lambda: self.host.ended(self, self.answered(end_of(self.heartbeat.remove(self.run))))
            )

    def _cancel_timers(self) -> None:
        """Cancel the timers. Called in the event loop: a timer of uvloop must not be touched by another thread."""
        for timer in self._timers:
            timer.cancel()


class TaskExecution(Execution):
    """An async handler as a task of the worker's event loop."""

    task: asyncio.Task[None] | None = None

    def _start(self, params: dict[str, Any]) -> None:
        self.task = self._create_task(self._main(params), self.host.context.copy())

    async def _main(self, params: dict[str, Any]) -> None:
        if self.task is None:  # an eager task starts before it is assigned
            await asyncio.sleep(0)
        error, value = await self.acall(lambda: self.handler.function(self.run, **params))
        self.exit_if_forked(error)
        if not self.has_stopped:
            log.warning("job %s (%s): event loop ended while its threads run", self.job.job_id, self.job.job_type)
            return  # no outcome is written: the lease expires
        if isinstance(error, asyncio.CancelledError) and self.host.is_cancelled:
            error = JobReleased(LOOP_ENDED)
        self.finish(error, value)

    def stack(self) -> str | None:
        frames = self.task.get_stack() if self.task is not None else None
        return "".join(traceback.format_stack(frames[-1])) if frames else None


class ThreadExecution(Execution):
    """A sync handler in a thread."""

    _thread: int | None = None

    def _start(self, params: dict[str, Any]) -> None:
        self.host.threads.submit(lambda: self.host.context.copy().run(self._main, params))

    def _main(self, params: dict[str, Any]) -> None:
        self._thread = threading.get_ident()
        error, value = self.call(lambda: self.handler.function(self.run, **params))
        self.exit_if_forked(error)
        self._thread = None
        self.finish(error, value)

    def _cancel_timers(self) -> None:
        if self._timers:
            self.host.in_loop(super()._cancel_timers)

    def stack(self) -> str | None:
        frame = sys._current_frames().get(self._thread or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else None
