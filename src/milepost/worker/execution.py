"""The execution of one claimed job, as a task of the worker's event loop or in a thread."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from milepost.core.errors import JobReleased, JobTimedOut, RunStop, StoreError
from milepost.core.job import FailureKind, Job
from milepost.core.serialization import from_json
from milepost.run.capture import capture
from milepost.run.checkpoints import StoreCheckpointWriter
from milepost.run.crash_report import report_exception
from milepost.run.heartbeat import Heartbeat
from milepost.run.heartbeat_state import PendingReport
from milepost.run.job_result import NO_RESULT, JobResult, job_result
from milepost.run.outcome import RunOutcome, abandonment, failed, outcome_of, postponed
from milepost.run.run import Run, cancel_task_on_stop
from milepost.run.threads import wait_for_threads
from milepost.settings import Settings
from milepost.stores.protocol import Store
from milepost.worker.end_hooks import HookCalls
from milepost.worker.handlers import Handler
from milepost.worker.process_pool import ProcessPool
from milepost.worker.registry import is_newer_accepting
from milepost.worker.thread_pool import ThreadPool

log = logging.getLogger("milepost.worker")

LEFT_TO_NEWER_SECONDS = 10.0
"""About how long a job whose parameters only a newer release accepts waits before a worker may claim it again."""


class Host(Protocol):
    """The part of a worker that an execution uses."""

    loop: asyncio.AbstractEventLoop
    store: Store
    heartbeat: Heartbeat
    settings: Settings
    threads: ThreadPool
    process_pool: ProcessPool
    hooks: HookCalls
    context: contextvars.Context
    """The context of every handler; each gets a copy."""

    def ended(self, execution: Execution, end: RunOutcome) -> None:
        """Take the outcome of a run whose code has stopped. Thread-safe."""

    def abandoned(self, execution: Execution, end: RunOutcome) -> None:
        """Take the outcome of a run whose code ignores its stop."""


class Execution:
    """The execution of one claimed job. `begin` it once; `stop` tells its code to stop."""

    def __init__(self, host: Host, job: Job, handler: Handler[Any, Any], claimed_at: float) -> None:
        self.host = host
        self.job = job
        self.handler = handler
        self.record = job.record
        self.token = self.record["token"]
        self.claimed_at = claimed_at
        self.is_abandoned = False
        self._timers: list[asyncio.TimerHandle] = []
        self.run = self._make_run()

    def _make_run(self) -> Run:
        return Run(
            self.job, self.token, StoreCheckpointWriter(self.host.store, self.host.heartbeat, until_stopped=True)
        )

    def enter(self) -> None:
        """Let the heartbeat renew the lease."""
        self.host.heartbeat.add(self.run, "stop", self.claimed_at)

    def begin(self) -> None:
        """Start the code. Called in the worker's event loop, after `enter`."""
        timeout = self.record.get("timeout")
        if timeout is not None:
            seconds = int(timeout) / 1_000_000
            reason = JobTimedOut(f"timeout of {seconds:g} s exceeded")
            self._timers.append(self.host.loop.call_later(seconds, self.stop, reason))
        try:
            params = self.handler.parameters.of(self.record)
        except Exception as error:  # noqa: BLE001 - user classes may raise anything
            self._refusal = self.host.loop.create_task(self._refuse(error))
            return
        self._start(params)

    async def _refuse(self, error: Exception) -> None:
        """Leave the job to the workers of a newer release that accepts its parameters, or fail it."""
        try:
            newer = await is_newer_accepting(self.host.store, self.handler, from_json(self.record.get("params", "{}")))
        except (StoreError, ValueError, TypeError, KeyError):
            newer = False
        if newer:
            log.warning("job %s (%s): left to a newer release: %s", self.job.job_id, self.job.job_type, error)
            delay = int(LEFT_TO_NEWER_SECONDS * (0.5 + random.random()) * 1_000_000)
            self.leave(lambda pending: postponed(self.run, pending, delay))
        else:
            self.finish(error, kind=FailureKind.BAD_PARAMETERS)

    def _start(self, params: dict[str, Any]) -> None:
        raise NotImplementedError

    def stop(self, reason: RunStop) -> None:
        """Tell the code to stop, and end the run in the record if it has not stopped within the grace period."""
        self.run.stop(reason)
        self._timers.append(self.host.loop.call_later(self.host.settings.grace, self.force_stop))

    def force_stop(self) -> None:
        """End the run in the record without waiting for its code any longer."""
        if self.is_abandoned or not self.run._stop_reasons:
            return
        end = abandonment(self.run, delay=self.retry_delay(self.run._stop_reasons[0]), stack=self.stack())
        if end is not None:
            self.is_abandoned = True
            end = self._with_hook(end)
            log.warning("job %s (%s): did not stop within the grace period", self.job.job_id, self.job.job_type)
            self.host.abandoned(self, end)

    def stack(self) -> str | None:
        """Return the current stack of the code, or None if it is not visible."""
        return None

    def retry_delay(self, error: BaseException) -> int | None:
        """Return the microseconds until the next attempt, if there is one."""
        return self.handler.type_options.retry.delay(error, self.job.attempt)

    def finish(
        self,
        error: BaseException | None,
        result: JobResult = NO_RESULT,
        how: str = "cooperative",
        kind: FailureKind = FailureKind.ERROR,
    ) -> None:
        """Remove the run from the heartbeat and pass its outcome to the worker. Never blocks the event loop."""

        def end_of(pending: PendingReport) -> RunOutcome:
            delay = self.retry_delay(error) if error is not None and kind is FailureKind.ERROR else None
            if isinstance(error, RunStop) or error is None:
                return outcome_of(self.run, pending, error, result=result, how=how, delay=delay)
            line, failure = report_exception(error, self.run, kind)
            return failed(self.run, pending, line, failure, delay=delay, name=type(error).__name__)

        self.leave(end_of)

    def leave(self, end_of: Callable[[PendingReport], RunOutcome]) -> None:
        """Remove the run from the heartbeat, without blocking, and pass its outcome to the worker."""
        for timer in self._timers:
            timer.cancel()  # only sets a flag, which is thread-safe
        pending = self.host.heartbeat.try_remove(self.run)
        if pending is not None:
            self.host.ended(self, self._with_hook(end_of(pending)))
        else:
            self.host.threads.submit(lambda: self._leave_late(end_of))

    def _leave_late(self, end_of: Callable[[PendingReport], RunOutcome]) -> None:
        self.host.ended(self, self._with_hook(end_of(self.host.heartbeat.remove(self.run))))

    def _with_hook(self, end: RunOutcome) -> RunOutcome:
        """Return an outcome after which the worker calls the hook of the job type, if there is one."""
        hooks = self.handler.type_options.hooks
        if hooks is None:
            return end
        return end.answered(lambda reply: self.host.hooks.start(hooks, reply, self.job.attempt))


class TaskExecution(Execution):
    """An async handler as a task of the worker's event loop."""

    task: asyncio.Task[None]

    def _start(self, params: dict[str, Any]) -> None:
        self.task = self.host.loop.create_task(self._main(params), context=self.host.context.copy())

    async def _main(self, params: dict[str, Any]) -> None:
        run, result, how = self.run, None, "cooperative"
        was_cancelled: Callable[[], bool] = bool
        caught: BaseException | None = None
        has_stopped = True
        try:
            if not hasattr(self, "task"):  # an eager task starts before it is assigned
                await asyncio.sleep(0)
            was_cancelled = cancel_task_on_stop(run, self.task, self.host.loop)
            if run._stop_reasons:
                how = "never_started"
            run.check()
            captured = capture.begin(run, self.host.settings.captures, self.host.settings.redact)
            try:
                result = await self.handler.function(run, **params)
            finally:
                run._on_stop = None
                try:
                    has_stopped = not run._threads or await wait_for_threads(run)
                finally:
                    capture.end(run, captured)
        except BaseException as raised:  # noqa: BLE001 - any exception ends the job, never the worker
            caught = raised
        run._on_stop = None
        if not has_stopped:
            log.warning("job %s (%s): event loop ended while its threads run", self.job.job_id, self.job.job_type)
            return  # no outcome is written: the lease expires
        error: BaseException | None = caught
        if isinstance(caught, asyncio.CancelledError):
            if run._stop_reasons and was_cancelled():
                error, how = run._stop_reasons[0].with_traceback(caught.__traceback__), "task_cancelled"
            elif self.task.cancelling():
                error = JobReleased("worker's event loop ended")
        self.finish(error, NO_RESULT if error is not None else job_result(result, run), how)

    def stack(self) -> str | None:
        frames = self.task.get_stack() if hasattr(self, "task") else None
        return "".join(traceback.format_stack(frames[-1])) if frames else None


class ThreadExecution(Execution):
    """A sync handler in a thread."""

    _thread: int | None = None

    def _start(self, params: dict[str, Any]) -> None:
        self.host.threads.submit(lambda: self.host.context.copy().run(self._main, params))

    def _main(self, params: dict[str, Any]) -> None:
        self._thread = threading.get_ident()
        run, result, how = self.run, None, "cooperative"
        caught: BaseException | None = None
        try:
            if run._stop_reasons:
                how = "never_started"
            run.check()
            captured = capture.begin(run, self.host.settings.captures, self.host.settings.redact)
            try:
                result = self.handler.function(run, **params)
            finally:
                capture.end(run, captured)
        except BaseException as raised:  # noqa: BLE001 - any exception ends the job, never the worker
            caught = raised
        self._thread = None
        self.finish(caught, NO_RESULT if caught is not None else job_result(result, run), how)

    def stack(self) -> str | None:
        frame = sys._current_frames().get(self._thread or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else None
