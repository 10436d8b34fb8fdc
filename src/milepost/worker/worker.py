"""The worker loop: claims jobs for its free slots, starts their executions, and writes their outcomes."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from milepost.core.errors import InvalidInputError, JobReleased, LeaseLost, RunStop, StoreError
from milepost.core.job import FailureKind, Job
from milepost.core.transitions import plan_fail, plan_release
from milepost.run.crash_report import report_exception
from milepost.run.outcome import LateReceipt, RunOutcome
from milepost.run.process_identity import process_name
from milepost.run.run import Run
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync
from milepost.worker.admission import START_DEADLINE, Admission, ClaimedJob, Step, is_crash_suspect
from milepost.worker.claim_policy import ClaimPolicy, limits_of
from milepost.worker.end_hooks import HookCalls
from milepost.worker.event_loop import LoopWatchdog, ThreadPool
from milepost.worker.execution import Execution, TaskExecution, ThreadExecution
from milepost.worker.handlers import Application, Handler, code_release, find_handler
from milepost.worker.idle import IDLE_WAIT_SECONDS, Idle
from milepost.worker.outbox import Outbox
from milepost.worker.process_execution import ProcessExecution
from milepost.worker.process_pool import ProcessPool
from milepost.worker.registry import JobType, WorkerRegistration, published_type

log = logging.getLogger("milepost.worker")
log.addHandler(logging.NullHandler())

DEFAULT_CONCURRENCY = 10
LAST_WRITES_SECONDS = 5.0

_numbers = itertools.count(1)


class Worker:
    """Runs the jobs of an application until it is stopped: `serve` in an event loop, or `run` in the main thread.

    `concurrency` is the maximum number of concurrent jobs (default 10). `queues` are the queues to serve (default: for each
    type the queue with its name, and its default queue). `only` is the id of a single job, after which the worker ends.
    """

    def __init__(
        self, app: Application, *, concurrency: int | None = None, queues: Iterable[str] | None = None, only: str | None = None
    ) -> None:  # fmt: skip
        slots = DEFAULT_CONCURRENCY if concurrency is None else concurrency
        if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= 10_000:
            raise InvalidInputError("concurrency", f"{concurrency!r:.40} must be a whole number from 1 to 10000")
        self.concurrency = slots
        self.settings = app.settings
        self.started = threading.Event()
        self.closed = False
        self.name = ""
        self._served = app.handlers.served(queues)
        self.handlers = {handler.job_type: handler for handler in self._served.values()}
        self._app = app
        self._monotonic = app.runtime.clock.monotonic
        self._single_job_id = only
        self._number = next(_numbers)
        self._running: dict[str, Execution] = {}
        self._ready = Admission(slots, app.settings.lease, self._needs_exclusive_run)
        self._exclusive: Execution | None = None
        self._outbox = Outbox(app.runtime.clock)
        self._ready_timer: asyncio.TimerHandle | None = None
        self._should_claim = True
        self._stopping = 0

    def _registered_types(self) -> list[JobType]:
        """Return the types with which this worker is listed: those with their default queue served, if there are any."""
        default = [handler for name, handler in self._served.items() if name == handler.ready_name]
        return [published_type(handler) for handler in default or self.handlers.values()]

    # --- lifecycle ---

    async def serve(self) -> None:
        """Run jobs until `stop` is called, then drain: running jobs are stopped and released uncharged."""
        self._check_handlers()
        self.loop = asyncio.get_running_loop()
        self.name = f"{process_name()}:{self._number}"
        self.store = self._app.store.with_blocking(blocking=True).with_blocking(blocking=False)
        self.heartbeat = self._app.runtime.heartbeat
        self.threads = ThreadPool(f"milepost-worker-{self._number}")
        self.process_pool = ProcessPool(self.loop)
        self._thread = threading.get_ident()
        self.context = contextvars.copy_context()
        self.hooks = HookCalls(self.loop, self.threads, self.context, self.concurrency)
        queues, lease, clock = limits_of(self._served), self.settings.lease_micros, self._app.runtime.clock
        release, ids = code_release(self.settings, self.handlers), self._app.runtime.ids
        self._claim_policy = ClaimPolicy(self.name, queues, lease, self._single_job_id, release, clock, ids)
        self.idle = Idle(self.store, self.name, tuple(self._served), self.heartbeat.wake, self._on_due)
        await self.idle.check_health(self.settings, lambda: self.is_stopping)
        registration = WorkerRegistration(
            self.store, self.name, self._registered_types(), self.concurrency, self._running_jobs, self.started.set
        )
        watchdog = LoopWatchdog(self.loop, self._run_of)
        self.heartbeat.retain()
        watchdog.start()
        renewal = self.loop.create_task(registration.keep_registered())
        try:
            log.info("worker %s serves %s", self.name, ", ".join(self._served))
            while not self._stopping:
                try:
                    await self._iterate()
                except Exception:
                    # A defect here must not stop all runs of the worker.
                    log.exception("worker %s: unexpected error; continuing", self.name)
                    await asyncio.sleep(IDLE_WAIT_SECONDS)
            await self._drain()
        finally:
            self.closed = True
            watchdog.close()
            await self._shut_down(renewal)
            if not self.idle.is_store_down:  # its registration expires soon anyway
                await registration.unregister()
            await self.store.close()
            log.info("worker %s ended", self.name)

    @property
    def is_stopping(self) -> bool:
        """Return whether the worker was stopped."""
        return self._stopping > 0

    def run(self) -> int:
        """Run in the main thread until SIGTERM or SIGINT, at once on the second; return the exit code."""
        from milepost.worker.runner import run_in_main_thread

        return run_in_main_thread(self)

    def stop(self, *, at_once: bool = False) -> None:
        """Drain and end. Called again, or with `at_once`, do not wait for code that ignores its stop. Thread-safe."""
        self._stopping = max(self._stopping + 1, 2 if at_once else 1)
        if hasattr(self, "loop"):
            self._in_loop(self._on_stop)

    def _in_loop(self, function: Callable[..., None], *args: Any) -> bool:
        """Call a function in the event loop, from any thread; return whether the loop still exists."""
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def _on_stop(self) -> None:
        self.idle.wake()
        if self._stopping >= 2:
            for execution in tuple(self._running.values()):
                execution.run.stop(JobReleased("worker is stopping at once"))
                execution.force_stop()

    def _check_handlers(self) -> None:
        for handler in self.handlers.values():
            if handler.type_options.isolation == "process":
                handler.require_importable()
                find_handler(handler.reference)

    async def _shut_down(self, renewal: asyncio.Task[None]) -> None:
        renewal.cancel()
        await asyncio.gather(renewal, return_exceptions=True)
        await self.idle.close()
        left = self.settings.grace if self._stopping < 2 else 1.0
        await asyncio.gather(self.hooks.finish(left), self.process_pool.close(left))
        self.threads.close()
        self.heartbeat.release()

    def _running_jobs(self) -> tuple[tuple[str, ...], bool]:
        return tuple(execution.job.job_id for execution in tuple(self._running.values())), self._stopping > 0

    # --- one iteration ---

    async def _iterate(self) -> None:
        self._begin_ready()
        claim_size = self._claim_size() if self._outbox or self._should_claim else 0
        if self._outbox or claim_size:
            await self._write_and_claim(claim_size)
            await asyncio.sleep(0)  # a memory store never suspends; let the started tasks run
            return
        exclusive = self._ready.is_exclusive or self._single_job_id is not None
        taken = len(self._running) + len(self._ready)
        if await self.idle.wait_for_wake(free=not exclusive and taken < self.concurrency):
            self._should_claim = True

    def _claim_size(self) -> int:
        """Return how many jobs to claim: the free slots, and as many as finished in the last 50 ms."""
        if self._stopping or self._ready.is_exclusive:
            return 0
        if self._single_job_id is not None:
            return 0 if self._running or self._ready else 1
        free = self.concurrency - len(self._running)
        return free + self._claim_policy.recently_finished() - len(self._ready)

    def _on_due(self) -> None:
        self._should_claim = True

    async def _write_and_claim(self, claim_size: int) -> None:
        """Write outcomes and claim jobs in one round trip."""
        claim = self._claim_policy.make(claim_size)
        sent_at = self._monotonic()
        try:
            await self._outbox.renew(self.store, self.settings.lease_micros)
            applied = await self.store.apply(self._outbox.take(), claim)
        except StoreError as error:
            self._outbox.failed(error)
            self._claim_policy.failed(claim, sent_at, error)
            await self.idle.back_off(error)
            return
        self.idle.on_store_reply()
        self._outbox.written(applied.outcomes)
        claimed = await self._claim_policy.read_reply(self.store, claim, applied, sent_at)
        if claim is None or claimed is None:
            return
        self._ready.add(claimed)
        self._should_claim = len(applied.claimed) >= len(claim.starts)
        if not applied.claimed and self._running:
            self.heartbeat.wake()  # a stop may have woken this worker
        self.idle.due(None if applied.next_due is None else (applied.next_due - applied.now) / 1e6)
        if self._single_job_id is not None and not applied.claimed:
            await self._check_single_job()

    async def _check_single_job(self) -> None:
        """End the worker if its single job has ended."""
        job = await self.store.get(self._single_job_id or "")
        if job is None or job.is_terminal:
            self.stop()

    # --- beginning ---

    def _begin_ready(self) -> None:
        """Start the claimed jobs that may start now, and return those that may not."""
        if self._stopping:
            return
        if self._exclusive is not None and self._exclusive.run._stop_reasons:
            self._end_exclusive()
        while step := self._ready.next(self._monotonic(), len(self._running), self._is_quiet):
            action, claimed = step
            if action is Step.RELEASE:
                self._release_unstarted(claimed)
            elif action is Step.BEGIN_EXCLUSIVE:
                self._start(self._release_exclusive())
            elif execution := self._enter(claimed):
                if action is Step.HOLD:
                    self._hold(execution)
                else:
                    self._start(execution)
        if self._ready and self._ready_timer is None:
            self._ready_timer = self.loop.call_later(START_DEADLINE, self._on_ready_timer)

    def _on_ready_timer(self) -> None:
        self._ready_timer = None
        self.idle.wake()

    def _is_quiet(self) -> bool:
        """Return whether no job runs, except ones that ignore their stop, and all outcomes are written."""
        return not self._outbox and all(execution.run._stop_reasons for execution in self._running.values())

    def _enter(self, claimed: ClaimedJob) -> Execution | None:
        """Return the execution of a job, with the heartbeat renewing its lease. None if the record is damaged."""
        handler = self._handler(claimed.job)
        try:
            execution = self._kind(claimed.job, handler)(self, claimed.job, handler, claimed.sent_at)
        except (ValueError, TypeError, KeyError) as error:
            self._ready.ended(claimed.job.record["token"])
            self._cannot_begin(claimed, error)
            return None
        execution.enter()
        return execution

    def _start(self, execution: Execution) -> None:
        self._running[execution.token] = execution
        execution.begin()

    def _hold(self, execution: Execution) -> None:
        """Keep a suspect until it can run exclusively; a stop meanwhile takes effect at once."""
        self._exclusive = execution
        execution.run._on_stop = self._on_exclusive_stop

    def _on_exclusive_stop(self, reason: RunStop) -> None:
        self._in_loop(self.idle.wake)

    def _release_exclusive(self) -> Execution:
        execution, self._exclusive = self._exclusive, None
        assert execution is not None, "a suspect is held until it starts or is dropped"
        execution.run._on_stop = None
        return execution

    def _end_exclusive(self) -> None:
        """End the held suspect without having started its code."""
        execution = self._release_exclusive()
        self._running[execution.token] = execution  # until its outcome is written
        execution.how = "never_started"
        execution.finish(execution.run._stop_reasons[0])

    def _handler(self, job: Job) -> Handler[Any, Any]:
        return self._app.handlers.get(job.job_type, self.handlers[job.job_type])  # it may have been redefined

    def _needs_exclusive_run(self, job: Job) -> bool:
        return is_crash_suspect(job) and self._kind(job, self._handler(job)) is not ProcessExecution

    def _kind(self, job: Job, handler: Handler[Any, Any]) -> type[Execution]:
        if handler.type_options.isolation == "process" or (is_crash_suspect(job) and handler.is_importable):
            return ProcessExecution
        return TaskExecution if handler.is_async else ThreadExecution

    def _cannot_begin(self, claimed: ClaimedJob, error: Exception) -> None:
        line, failure = report_exception(error, None, FailureKind.BAD_PARAMETERS)
        plan = plan_fail(new_operation_id(), claimed.job.record["token"], error=line, failure=failure, report={})
        self._outbox.add(RunOutcome([Write(claimed.job.job_id, plan, answer=False)], None))

    def _release_unstarted(self, claimed: ClaimedJob) -> None:
        """Release a job that has not started, uncharged."""
        job, token = claimed.job, claimed.job.record["token"]
        late = LateReceipt(token, "never_started")
        plan = plan_release(new_operation_id(), token, {})
        self._outbox.add(RunOutcome([Write(job.job_id, plan, answer=False)], late))

    # --- ending ---

    def ended(self, execution: Execution, end: RunOutcome) -> None:
        """Take the outcome of a run whose code has stopped. Thread-safe."""
        if threading.get_ident() == self._thread and not self.closed:
            self._on_end(execution, end)
            return
        if self.closed or not self._in_loop(self._on_end, execution, end):
            self.threads.submit(lambda: self._write_alone(end))

    def _on_end(self, execution: Execution, end: RunOutcome) -> None:
        self._running.pop(execution.token, None)
        self._ready.ended(execution.token)
        if self.closed:
            self.threads.submit(lambda: self._write_alone(end))
            return
        self._claim_policy.finished()
        stops = execution.run._stop_reasons
        if end.writes and not (stops and any(isinstance(stop, LeaseLost) for stop in stops)):
            self._outbox.add(end)
        if not self.idle.is_waiting_for_jobs:
            self._should_claim = True
        if self._ready:
            self._begin_ready()
        self.idle.wake()

    def _write_alone(self, end: RunOutcome) -> None:
        """Write the outcome of code that ended after its worker."""
        try:
            run_sync(end._replace(on_end=None).write(self.heartbeat.store.apply))
        except StoreError as error:
            log.warning("job %s: outcome not written: %s", end.writes[-1].job_id, error)

    def abandoned(self, execution: Execution, end: RunOutcome) -> None:
        """End a run in the record whose code ignores its stop."""
        self._outbox.add(end)
        self.idle.wake()

    def _run_of(self, task: asyncio.Task[object]) -> Run | None:
        for execution in tuple(self._running.values()):
            if isinstance(execution, TaskExecution) and execution.task is task and isinstance(execution.run, Run):
                return execution.run
        return None

    # --- draining ---

    async def _drain(self) -> None:
        """Stop the running jobs and release each when its code has stopped, within the grace period."""
        for claimed in self._ready.clear():
            self._release_unstarted(claimed)
        if self._exclusive is not None:
            self._exclusive.run.stop(JobReleased("worker is shutting down"))
            self._end_exclusive()
        for execution in tuple(self._running.values()):
            execution.stop(JobReleased("worker is shutting down"))
            if self._stopping >= 2:
                execution.force_stop()
        over = self._monotonic() + self.settings.grace + 1.0
        while not self._is_drained() and self._monotonic() < over + LAST_WRITES_SECONDS:
            if self._outbox:
                await self._write_and_claim(0)
                await asyncio.sleep(0)
            elif self._monotonic() > over or (self._stopping >= 2 and not self._killing()):
                break
            else:
                await self.idle.wait_at_most(0.1)

    def _is_drained(self) -> bool:
        return not self._outbox and all(execution.is_abandoned for execution in self._running.values())

    def _killing(self) -> bool:
        return any(isinstance(execution, ProcessExecution) for execution in self._running.values())
