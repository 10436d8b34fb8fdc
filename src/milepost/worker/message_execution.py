"""The execution of one job that an external task queue delivered: it runs under a lease, or is rejected."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from milepost.core.errors import (
    InvalidInputError,
    JobReleased,
    LeaseLost,
    OutcomeUnknownError,
    RunStop,
    StoreError,
)
from milepost.core.job import FailureKind, Job, JobStatus
from milepost.core.placement import starts_at
from milepost.core.transitions import plan_deliver, plan_dispatched, plan_undispatchable
from milepost.run.execution import Ended, LeasedExecution
from milepost.run.heartbeat_state import PendingReport
from milepost.run.outcome import RunOutcome
from milepost.run.process_identity import process_name
from milepost.run.run import Run
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.protocol import ApplyResult, Store, Write, WriteResult
from milepost.stores.sync_bridge import run_sync
from milepost.worker.dispatcher import TaskQueue, TaskQueueUnavailableError
from milepost.worker.event_loop import run_in_new_loop
from milepost.worker.handlers import Application, code_release


class NotDelivered(Exception):
    """The job must not run by this delivery. `.job` is its record, or None if it is gone."""

    def __init__(self, job: Job | None) -> None:
        super().__init__("the job no longer exists" if job is None else f"job {job.job_id} is {job.status}")
        self.job = job


class BadParametersError(InvalidInputError):
    """The parameters in the record do not match the handler."""


log = logging.getLogger("milepost.task_queue")

RETRY_INTERVAL = 0.5
START_TIMEOUT = 10.0
"""Seconds that a delivery waits for an unavailable store before its message is requeued."""
END_TIMEOUT = 600.0
"""Seconds that the outcome of a run waits for an unavailable store; after that the job runs again."""
EXIT_REASON_SECONDS = 1.0
"""How long code that its task queue has ended waits for the reason: a cancel may have come through the task queue."""


class TaskQueueRetry(NamedTuple):
    """The task queue sends the message again after `delay` seconds because of `error`; the record keeps `message`."""

    error: BaseException
    delay: float
    message: str | None = None


class MessageExecution(LeasedExecution):
    """The execution of a delivered message, in a thread or awaited: `begin`, run the code, `end`.

    A suspended job needs its message no more: the dispatcher sends another one when it may continue.

    `create_writes` create the record if the message arrives first; `message` is the argument of `TaskQueue.stop`.
    `decides` returns the retry of an error, if the task queue retries. `queue_result` returns the text of a result for
    the task queue, if JSON would change it.

    `recreate` returns the writes that create a lost record. Then the code belongs to the task queue: an outage never
    stops it, and it takes a new lease afterwards, unless another run has it.
    """

    def __init__(
        self,
        app: Application,
        task_queue: TaskQueue,
        job_id: str,
        *,
        message: Any = None,
        create_writes: Sequence[Write] = (),
        recreate: Callable[[], Sequence[Write]] | None = None,
        decides: Callable[[BaseException], TaskQueueRetry | None] | None = None,
        queue_result: Callable[[Any], str | None] | None = None,
        store: Store | None = None,
    ) -> None:
        super().__init__(app.settings.captures, app.settings.redact)
        self.heartbeat = app.runtime.heartbeat
        self.runtime = app.runtime.with_store(store if store is not None else self.heartbeat.store)
        self._app = app
        self._task_queue = task_queue
        self._job_id = job_id
        self._message = message
        self._create_writes = create_writes
        self._recreate = recreate
        self.can_suspend = recreate is None
        if recreate is not None:
            self.on_outage = "continue"
            self.reacquire = self._reacquire
        self._nonce = new_nonce()
        self._decides = decides
        self._queue_result = queue_result
        self._timers: list[threading.Timer] = []
        self._is_abandoned = False
        self._stop_requested = threading.Event()
        self._ended_by: str | None = None
        self._end_lock = threading.Lock()
        self._has_ended = False
        self.replies: list[WriteResult] = []
        """The reply to the outcome, for the hooks of the handler, if it has any."""

    @property
    def record(self) -> Mapping[str, str]:
        """Return the record as it was at the start."""
        return self.run._job.record

    # --- beginning ---

    async def begin(self) -> Run:
        """Take the lease in one round trip and return the run. Raises NotDelivered if the job must not run now."""
        run = await self.start(self.runtime, follow_up=self._follow_up)
        run._task_queues = dict.fromkeys(self._app.handlers, self._task_queue.name)
        handler = self._app.handlers.get(run.job_type)
        if handler is not None and handler.type_options.hooks is not None:
            self.on_reply = self.replies.append
        self.start_timeout()
        return run

    async def take_lease(self) -> Job:
        applied = await self._apply_with_retries([*self._create_writes, self._start_write()], START_TIMEOUT)
        outcome = applied.outcomes[-1]
        job = outcome.job
        # A late reply contains the current record, which another run may own.
        if outcome.accepted and job is not None and self._is_mine(job):
            return await self._renewed(job)
        log.info("job %s: delivery rejected: %s", self._job_id, job.status if job is not None else "gone")
        if job is not None and job.status is JobStatus.PENDING and (why := self._awaited_stop(job)):
            # This delivery uses up the message: the sweeper sends another one when the code has stopped.
            again = plan_undispatchable(new_operation_id(), 0, f"{why} has not stopped yet")
            await self._apply_with_retries([Write(self._job_id, again, answer=False)], START_TIMEOUT)
        raise NotDelivered(job)

    def _awaited_stop(self, job: Job) -> str:
        """Return whose code may have kept a pending job from its start, or ""."""
        if "stop_token" in job.record:
            return "the code of the previous run"
        start = starts_at(job.record)
        may_start = start is not None and start <= self.runtime.clock.time() * 1_000_000
        return "the code of an earlier job with its unique key" if may_start and "unique_key" in job.record else ""

    def _start_write(self) -> Write:
        lease = self._app.settings.lease_micros
        code = code_release(self._app.settings, self._app.handlers)
        start = plan_deliver(new_operation_id(), nonce=self._nonce, lease=lease, worker=process_name(), release=code)
        return Write(self._job_id, start)

    def _is_mine(self, job: Job) -> bool:
        return job.record.get("token", "").endswith(f":{self._nonce}")

    def _reacquire(self, token: str) -> bool:
        """Take a new lease after that of `token` was lost; return False if another run has the job or it has ended."""
        with self._end_lock:
            if self._has_ended or self.run.token != token:
                return True  # the end of the run or another thread takes the lease
            return self._start_new_run()

    def _start_new_run(self) -> bool:
        assert self._recreate is not None, "the task queue's own code"
        sent_at = self.runtime.clock.monotonic()
        job = run_sync(self.heartbeat.store.apply([*self._recreate(), self._start_write()])).outcomes[-1].job
        if job is None or job.status is not JobStatus.RUNNING or not self._is_mine(job):
            return False
        self.heartbeat.change_token(self.run, job.record["token"], sent_at)
        log.warning("job %s: lease lost during an outage; new lease taken", self._job_id)
        return True

    async def _renewed(self, job: Job) -> Job:
        """Renew the lease until a reply is not old: another run may have the job by then. Raises NotDelivered."""
        settings = self._app.settings
        longest = settings.lease / 2
        while (now := self.runtime.clock.monotonic()) - self.sent_at > longest:
            (state,) = await self.runtime.store.renew([(job.job_id, job.record["token"])], settings.lease_micros)
            if state == "lost":
                raise NotDelivered(job)
            self.sent_at, longest = now, settings.lease
        return job

    # --- stopping ---

    def _follow_up(self, reason: RunStop) -> None:
        self._stop_requested.set()
        if isinstance(reason, LeaseLost):
            return  # another run has the job; this code can write nothing
        self.call_later(self._app.settings.grace, lambda: self._force_stop(hard=False))

    def _force_stop(self, *, hard: bool) -> None:
        """End the run in the record and ask the task queue to end the code, after the grace period."""
        run, grace = self.run, self._app.settings.grace
        if not self._is_abandoned:
            self._is_abandoned = True
            log.warning("job %s (%s): did not stop within the grace period", run.job_id, run.job_type)
            end = self.abandonment()
            if end is not None:
                self._abandon(end)
        with self._end_lock:
            if self._has_ended:
                return
            try:
                self._ended_by = self._task_queue.stop(self._message, hard=hard)
            except TaskQueueUnavailableError as error:
                log.warning("job %s: stop request to %s failed, retrying: %s", run.job_id, self._task_queue.name, error)
                self.call_later(max(RETRY_INTERVAL, grace), lambda: self._force_stop(hard=hard))
                return
        if self._ended_by is not None and not hard:
            self.call_later(grace, lambda: self._force_stop(hard=True))

    def _abandon(self, end: RunOutcome) -> None:
        """End the run in the record while its code continues. Repeat until the store accepts it or the code ends."""
        try:
            reply = run_sync(self.heartbeat.store.apply(end.writes)).outcomes[-1]
            if reply.accepted and end.on_end is not None:
                end.on_end(reply)
        except StoreError as error:
            log.warning("job %s: outcome not written yet: %s", self._job_id, error)
            if not self._has_ended:
                self.call_later(RETRY_INTERVAL, lambda: self._abandon(end))

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, function)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    # --- running ---

    def execute(self, code: Callable[[Run], Any], *, is_async: bool = False) -> Any:
        """Begin, run the code in this thread, end; return its result or raise its exception. Raises NotDelivered.

        Async code runs in a new event loop.
        """
        run = run_sync(self.begin())
        error, result = None, None
        try:
            try:
                if is_async:
                    error, result = run_in_new_loop(self.acall(lambda: code(run)))
                else:
                    error, result = self.call(lambda: code(run))
            finally:
                with self._end_lock:  # from here on the task queue is not asked to end this thread
                    self._has_ended = True
        except BaseException as raised:  # noqa: BLE001 - raised by the task queue in this thread
            error = self.end_code(raised)
        run_sync(self.end(self._exit_reason(error), result))
        if error is not None:
            raise error
        return result

    async def aexecute(self, code: Callable[[Run], Awaitable[Any]]) -> Any:
        """Begin, run the code in this task, end. A stop cancels the task at its next await."""
        run = await self.begin()
        error, result = await self.acall(lambda: code(run))
        await self.end(error, result)
        if error is not None:
            raise error
        return result

    async def acall(self, code: Callable[[], Awaitable[Any]]) -> Ended:
        """As `LeasedExecution.acall`. A cancellation of the task by the task queue releases the job."""
        error, value = await super().acall(code)
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                error = JobReleased("worker of the task queue is shutting down")
            else:  # an error of the code
                self.interrupt_cancels = False
        return error, value

    def _exit_reason(self, error: BaseException | None) -> BaseException | None:
        """Return the stop that the task queue carried out, or the end of its worker, instead of its exception."""
        if error is None or isinstance(error, RunStop) or not self._task_queue.is_exit(error):
            return error
        self._stop_requested.wait(EXIT_REASON_SECONDS)
        if not self.run._stop_reasons:
            return JobReleased("worker of the task queue is shutting down")
        self.how = self._ended_by or "terminated"
        return self.run._stop_reasons[0]

    # --- ending ---

    async def end(self, error: BaseException | None, result: Any = None) -> None:
        """Write the outcome in one round trip, repeated during an outage of the store for as long as a lease."""
        if self.is_forked:
            return
        self._has_ended = True
        for timer in tuple(self._timers):
            timer.cancel()
        kept = self.result(error, result)
        pending = await self.detach()
        run = self.run
        run._follow_up = None  # breaks a reference cycle, so that the job is freed at once
        decided = self._decides(error) if self._decides is not None and error is not None else None
        bad = isinstance(error, BadParametersError)
        delay = None if bad or error is None else self.retry_delay(error)
        queue_result = self._queue_result(result) if self._queue_result is not None and error is None else None
        more: list[Write] = []
        if decided is not None:
            delay, lost_after = int(decided.delay * 1_000_000), int(self._task_queue.lost_after * 1_000_000)
            note = plan_dispatched(new_operation_id(), delay + lost_after, queue_message=decided.message, delay=delay)
            more.append(Write(run.job_id, note, answer=False))

        def plan(report: PendingReport) -> RunOutcome:
            cause = error if decided is None else decided.error
            kind = FailureKind.BAD_PARAMETERS if bad else FailureKind.ERROR
            end = self.outcome(report, cause, kept, kind=kind, delay=delay, queue_result=queue_result)
            return self.answered(end)

        try:
            is_known = await self._persist(plan(pending), more)
            if not is_known and self._recreate is not None and self._start_new_run():
                await self._persist(plan(PendingReport([], run._report(), pending.lines, usage=pending.usage)), more)
        except StoreError as failure:
            log.error("job %s: outcome not written: %s", self._job_id, failure)

    async def _persist(self, end: RunOutcome, more: Sequence[Write]) -> bool:
        """Write the outcome; return False if the record no longer knows the run."""
        replies = await end.write(lambda writes: self._apply_with_retries(writes, END_TIMEOUT), more)
        known = [reply.accepted for reply in replies if reply is not None]
        return not known or any(known)

    async def _apply_with_retries(self, writes: Sequence[Write], patience: float) -> ApplyResult:
        """Apply writes, with retries for `patience` seconds, or longer if they may have been applied already."""
        store = self.runtime.store
        began = self.runtime.clock.monotonic()
        is_unknown = has_warned = False
        while True:
            if not is_unknown:
                self.sent_at = self.runtime.clock.monotonic()
            try:
                return await store.apply(writes)
            except StoreError as error:
                is_unknown = is_unknown or isinstance(error, OutcomeUnknownError)
                if self.runtime.clock.monotonic() - began > (END_TIMEOUT if is_unknown else patience):
                    raise
                if not has_warned:
                    has_warned = True
                    log.warning("job %s: waiting for the store: %s", self._job_id, error)
            if store.blocking:
                threading.Event().wait(RETRY_INTERVAL)
            else:
                await asyncio.sleep(RETRY_INTERVAL)

    def retry_delay(self, error: BaseException) -> int | None:
        if self._decides is not None:
            return 0 if self._decides(error) is not None else None
        return self._app.handlers[self.run.job_type].type_options.retry.delay(error, self.run.attempt)
