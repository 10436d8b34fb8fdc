"""The execution of a run's code under a lease: how the code starts, is stopped and ends, and what its outcome is.

Workers, their child processes, the messages of task queues and `track` share it. They differ in where the code runs and
how its outcome is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from milepost.core.errors import BudgetExceededError, JobSuspended, JobTimedOut, RunStop, Snooze
from milepost.core.job import FailureKind, Job
from milepost.run.capture import capture
from milepost.run.checkpoints import StoreCheckpointWriter
from milepost.run.context import thread_and_task
from milepost.run.crash_report import load_redact_hook, report_exception
from milepost.run.heartbeat import Heartbeat
from milepost.run.heartbeat_state import OnOutage, PendingReport, ReacquireLease
from milepost.run.job_result import NO_RESULT, JobResult, job_result
from milepost.run.loops import record_missed_items
from milepost.run.outcome import RunOutcome, abandonment, committed, completed, failed, interrupted, postponed, stopped
from milepost.run.repeated_work import KeptWork
from milepost.run.run import Run
from milepost.run.runtime import Runtime
from milepost.run.suspension import of_group, snooze_micros
from milepost.run.transaction import settle
from milepost.run.usage import BudgetSpent
from milepost.stores.protocol import WriteResult

log = logging.getLogger("milepost.run")

Ended = tuple[BaseException | None, Any]
"""What the code of a run has raised, or None and what it has returned."""


class LeasedExecution:
    """The execution of one run: `call` or `acall` runs its code, `outcome` returns the writes that end it."""

    run: Run
    run_type: type[Run] = Run
    heartbeat: Heartbeat
    runtime: Runtime
    how = "cooperative"
    """How a stop was brought about, for the receipt."""
    has_stopped = True
    """Whether all threads of the code have ended too. If not, another run may start only when the lease has expired."""
    can_suspend = False
    """Whether a worker can start the code again, so that `run.sleep` need not wait in place."""
    interrupt_cancels = True
    """Whether a KeyboardInterrupt or CancelledError of the code cancels the job. In a worker it fails the job."""
    on_reply: Callable[[WriteResult], None] | None = None
    """Called with the reply of the store to the outcome, once it has accepted it."""

    on_outage: OnOutage = "stop"
    waits_for_store = True
    """Whether a checkpoint waits during an outage of the store instead of raising."""
    reacquire: ReacquireLease | None = None
    has_started = False
    """Whether the lease was taken. From then on the record tells what happens to the job."""
    sent_at = 0.0
    """When the lease was requested, on the monotonic clock; `take_lease` may correct it."""

    def __init__(self, captures: frozenset[str], redact: str | None, *, whole_process: bool = False) -> None:
        self._captures = captures
        self._redact = redact
        self._whole_process = whole_process
        self._captured: capture.CaptureHandle | None = None
        self._was_cancelled: Callable[[], bool] = bool

    # --- the lease ---

    async def start(
        self,
        runtime: Runtime,
        plan: Mapping[str, float] | None = None,
        follow_up: Callable[[RunStop], None] | None = None,
    ) -> Run:
        """Take a lease, let the heartbeat renew it, and return the run, which calls `follow_up` when it is stopped."""
        self.runtime = runtime
        load_redact_hook(self._redact)  # rejected before a job is created
        self.sent_at = runtime.clock.monotonic()
        job = await self.take_lease()
        self.heartbeat = runtime.heartbeat
        checkpoint_writer = StoreCheckpointWriter(
            runtime.store, self.heartbeat, until_stopped=self.waits_for_store, reacquire=self.reacquire
        )
        self.run = self.run_type(job, job.record["token"], checkpoint_writer, plan=plan)
        self.run._can_suspend = self.can_suspend
        self.run._follow_up = follow_up
        self.has_started = True
        sent_at = self.sent_at if self.on_outage == "stop" else None
        self.heartbeat.add(self.run, self.on_outage, sent_at, self.reacquire)
        return self.run

    async def take_lease(self) -> Job:
        """Take a lease and return the record."""
        raise NotImplementedError

    @property
    def is_forked(self) -> bool:
        """Return whether this is a copy in a forked process. The run belongs to the parent, which ends it."""
        return os.getpid() != self.run._pid

    def exit_if_forked(self, error: BaseException | None) -> None:
        """Exit, with the code of a script that ends so, if this is a copy in a forked process, which has no other thread."""
        if not self.is_forked:
            return
        code: object = 1
        if error is None or isinstance(error, SystemExit):
            code = error.code if error is not None else None
        else:
            traceback.print_exception(error)
        if code is not None and not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
            code = 1
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or None
                stream.flush()
        os._exit((code or 0) & 0xFF)

    async def detach(self) -> PendingReport:
        """Stop the reports of the run and return what is not sent of it, without blocking an event loop."""
        pending = self.heartbeat.try_remove(self.run)
        if pending is not None:
            return pending
        if self.runtime.store.blocking:
            return self.heartbeat.remove(self.run)
        return await asyncio.to_thread(self.heartbeat.remove, self.run)

    # --- the code ---

    def call(self, code: Callable[[], Any]) -> Ended:
        """Run the code in this thread. Raises nothing."""
        try:
            self._check_at_start()
            self.begin_code()
            value = code()
            if self.run._children is not None:
                self.run._children.finish()
        except BaseException as raised:  # noqa: BLE001 - any exception ends the job
            return self.settled(self.end_code(raised)), None
        return self.settled(self.end_code(None)), value

    def settled(self, error: BaseException | None) -> BaseException | None:
        """Wait for the end of a transaction with a checkpoint or the result of the run; return the error of the run.

        If a budget is spent that may be raised, ask for it first.
        """
        if self.run._transaction is not None:  # never in a child process, which has no store
            error = settle(self.heartbeat.store, self.run, error)
        if isinstance(error, BudgetSpent):
            try:
                return self.run._checkpoint_writer.ask_to_raise(self.run, error.holder)
            except BaseException as raised:  # noqa: BLE001 - any exception ends the job
                return raised
        return error

    async def acall(self, code: Callable[[], Awaitable[Any]]) -> Ended:
        """Run the code in this task, which a stop cancels at its next await, and wait for the threads of the code."""
        try:
            self.cancel_on_stop()
            self._check_at_start()
            self.begin_code()
            value = await code()
            if self.run._children is not None:
                await asyncio.to_thread(self.run._children.finish)
        except BaseException as raised:  # noqa: BLE001 - as above
            return await self._aend_code(raised), None
        return await self._aend_code(None), value

    def cancel_on_stop(self) -> None:
        """Let a stop cancel this task at its next await, until `end_code`."""
        self._was_cancelled = cancel_task_on_stop(self.run, _current_task())

    def _check_at_start(self) -> None:
        self.run._checkpoint_writer.stop_if_expired(self.run)
        if self.run._stop_reasons:
            self.how = "never_started"
        self.run.check()
        if "usage_budget" in self.run._job.record:
            self.run._refuse_spent_budget()

    def begin_code(self) -> None:
        """Begin the capture, where the code runs."""
        self.run._started_in, self.run._began = thread_and_task(), time.monotonic()
        self.run._kept_work = KeptWork()
        self._captured = capture.begin(self.run, self._captures, self._redact, whole_process=self._whole_process)

    def end_code(self, error: BaseException | None) -> BaseException | None:
        """End the capture; return the error of the code, or the stop that cancelled its task instead."""
        self.run._on_stop = None
        if isinstance(error, BaseExceptionGroup):
            error = of_group(error)
        stop = self.run._stop_reasons[0] if self.run._stop_reasons else None
        if error is None and isinstance(stop, JobSuspended):
            self.run.log(
                "the code caught JobSuspended and returned; suspended all the same, its result is dropped", "warning"
            )
            error = stop
        elif isinstance(error, JobSuspended) and stop is not None:
            error = stop  # a cancel or timeout that came while the code was ending
        over = self.run._over_budget
        if isinstance(over, BudgetExceededError) and (error is None or isinstance(error, Exception)):
            error = over  # even if the code has caught it
        elif isinstance(over, BudgetSpent) and over.was_raised and error is None:
            error = over
        if error is None:
            error = self.run._unawaited_call()
        if error is None:
            record_missed_items(self.run)
        if self._captured is not None:
            capture.end(self.run, self._captured)
            self._captured = None
        self.run._leave_all(error)
        was_cancelled, self._was_cancelled = self._was_cancelled(), bool
        if not was_cancelled:
            return error
        task = _current_task()
        if task.cancelling():
            task.uncancel()
        if not isinstance(error, asyncio.CancelledError):
            return error
        self.how = "task_cancelled"
        return self.run._stop_reasons[0].with_traceback(error.__traceback__)

    async def _aend_code(self, error: BaseException | None) -> BaseException | None:
        self.run._on_stop = None  # from here on the task is not cancelled any more
        try:
            self.has_stopped = await self.wait_for_threads()
        finally:
            error = self.end_code(error)
        if self.run._transaction is not None or isinstance(error, BudgetSpent):
            error = await asyncio.to_thread(self.settled, error)
        return error

    async def wait_for_threads(self) -> bool:
        """Wait until the calls in threads that the code started from an event loop have returned.

        Until then the code has not stopped. Return False if this task is cancelled first, because its loop ends.
        """
        while calls := list(self.run._threads):
            try:
                done, _ = await asyncio.wait([asyncio.wrap_future(call) for call in calls])
            except asyncio.CancelledError:
                return False
            for call in done:
                call.cancelled() or call.exception()  # raised in the code that awaits them, if any does
        return True

    # --- stopping ---

    def start_timeout(self) -> None:
        """Stop the run when the time limit of its job is over."""
        timeout = self.run._job.record.get("timeout")
        if timeout is not None:
            limit = int(timeout) / 1_000_000
            left = max(0.0, limit - int(self.run._job.record.get("ran", "0")) / 1_000_000)
            self.call_later(left, lambda: self.stop(JobTimedOut(f"timeout of {limit:g} s exceeded")))

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function in some seconds, unless the run has ended by then."""
        raise NotImplementedError

    def stop(self, reason: RunStop) -> None:
        """Tell the code to stop."""
        self.run.stop(reason)

    def stack(self) -> str | None:
        """Return the current stack of the code, or None if it is not visible."""
        return None

    # --- the outcome ---

    def result(self, error: BaseException | None, value: Any) -> JobResult:
        """Return the result of code that has returned a value. Call it while the heartbeat reports the run."""
        if error is not None or value is None or self.run._transaction is not None:
            return NO_RESULT
        return job_result(value, self.run)

    def retry_delay(self, error: BaseException) -> int | None:
        """Return the microseconds until the next attempt after an error, or None if there is none."""
        return None

    def outcome(
        self,
        pending: PendingReport,
        error: BaseException | None,
        result: JobResult = NO_RESULT,
        *,
        kind: FailureKind = FailureKind.ERROR,
        delay: int | None = None,
        queue_result: str | None = None,
    ) -> RunOutcome:
        """Return the writes that end the run, whose code has returned (`error` None) or raised.

        `delay` is the delay of a retry in microseconds, None for no retry; `queue_result` is as in `plan_complete`.
        """
        run = self.run
        if error is None and run._transaction is not None and run._transaction.result is not None:
            return committed(run, pending, run._transaction.result)
        if error is None:
            return completed(run, pending, result, queue_result)
        if isinstance(error, RunStop):
            return stopped(run, pending, error, how=self.how, delay=delay)
        if isinstance(error, Snooze) and run._job.run_by != "track":
            return postponed(run, pending, snooze_micros(run, error.delay), self.how, error.gate)
        if self.interrupt_cancels and isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
            by = "Ctrl-C" if isinstance(error, KeyboardInterrupt) else "its task"
            return interrupted(run, pending, by, self.how)
        line, failure = report_exception(error, run, kind)
        return failed(run, pending, line, failure, delay=delay, name=type(error).__name__, how=self.how)

    def abandonment(self) -> RunOutcome | None:
        """Return the writes that end the run while its code ignores the stop; None if it has ended in the record."""
        end = abandonment(self.run, delay=self.retry_delay(self.run._stop_reasons[0]), stack=self.stack())
        return None if end is None else self.answered(end)

    def answered(self, end: RunOutcome) -> RunOutcome:
        """Return the outcome with the call of `on_reply`."""
        return end if self.on_reply is None else end.answered(self.on_reply)


def cancel_task_on_stop(run: Run, task: asyncio.Task[Any]) -> Callable[[], bool]:
    """Cancel a task at its next await when the run is stopped; return a function that tells whether that happened."""
    cancelled: list[bool] = []

    def cancel() -> None:
        # Without `on_stop` the code is over, and its end is written. (To name the function itself here would make a circle of
        # references for each run, which the garbage collector would have to find.)
        if not cancelled and not task.done() and run._on_stop is not None:
            cancelled.append(True)
            task.cancel()

    def on_stop(reason: RunStop) -> None:
        try:
            task.get_loop().call_soon_threadsafe(cancel)
        except RuntimeError:
            log.debug("job %s: event loop is closed", run.job_id)

    run._on_stop = on_stop
    return lambda: bool(cancelled)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "async code runs in a task"
    return task
