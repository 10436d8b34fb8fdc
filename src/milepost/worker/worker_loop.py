"""The worker loop: claims jobs for its free slots, starts their executions, and writes their outcomes."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from milepost.core.errors import JobReleased, LeaseHeldError, LeaseLost, OutcomeUnknownError, RunStop, StoreError
from milepost.core.job import Job
from milepost.run.outcome import RunOutcome
from milepost.run.run import Run
from milepost.stores.sync_bridge import run_sync
from milepost.worker.end_hooks import HookCalls
from milepost.worker.event_loop import LoopWatchdog, ThreadPool
from milepost.worker.execution import Execution, TaskExecution, ThreadExecution
from milepost.worker.handlers import Application, Handler, code_release
from milepost.worker.idle import IDLE_WAIT_SECONDS, Idle
from milepost.worker.process_execution import ProcessExecution
from milepost.worker.process_pool import ProcessPool
from milepost.worker.registry import JobType, WorkerRegistration, published_type
from milepost.worker.store_requests import ClaimPolicy, Outbox, failure_of, limits_of, release_of
from milepost.worker.worker_state import START_DEADLINE, ClaimedJob, Step, WorkerState, is_crash_suspect

log = logging.getLogger("milepost.worker")
log.addHandler(logging.NullHandler())

LAST_WRITES_SECONDS = 5.0


class WorkerLoop:
    """The loop of one worker, made in its event loop. `WorkerState` decides; this drives it and does the I/O."""

    def __init__(
        self,
        app: Application,
        name: str,
        concurrency: int,
        served: Mapping[str, Handler[Any, Any]],
        only: str | None,
        max_jobs: int | None = None,
        exit_when_idle: float | None = None,
    ) -> None:
        self.name = name
        self.settings = app.settings
        self.loop = asyncio.get_running_loop()
        self.store = app.store.with_blocking(blocking=True).with_blocking(blocking=False)
        self.heartbeat = app.runtime.heartbeat
        self.threads = ThreadPool(f"milepost-worker-{name.rpartition(':')[2]}")
        self.process_pool = ProcessPool(self.loop)
        self.process_setup = app.handlers.process_setup
        self.context = contextvars.copy_context()
        self.hooks = HookCalls(self.loop, self.threads, self.context, concurrency)
        self.closed = False
        self.transaction_types: set[str] = set()
        """The job types of suspects that wanted to write in a transaction of their own, which a child process cannot."""
        self._app = app
        self._concurrency = concurrency
        self._served = served
        self._handlers = {handler.job_type: handler for handler in served.values()}
        self._single_job_id = only
        self._thread = threading.get_ident()
        self._monotonic = app.runtime.clock.monotonic
        self._outbox = Outbox(app.runtime.clock)
        self._ready_timer: asyncio.TimerHandle | None = None
        self._state: WorkerState[Execution] = WorkerState(
            concurrency,
            self.settings.lease,
            needs_exclusive_run=self._needs_exclusive_run,
            is_stopped=lambda execution: bool(execution.run._stop_reasons),
            single=only is not None,
            max_jobs=max_jobs,
        )
        self._task: asyncio.Task[Any] | None = None
        self._exit_when_idle = exit_when_idle
        self._idle_since: float | None = None
        queues, lease, clock = limits_of(served), self.settings.lease_micros, app.runtime.clock
        release, ids = code_release(self.settings, self._handlers), app.runtime.ids
        self._claim_policy = ClaimPolicy(name, queues, lease, only, release, clock, ids)
        self.idle = Idle(self.store, name, tuple(served), self.heartbeat.wake, self._on_due)

    def _registered_types(self) -> list[JobType]:
        """Return the types with which this worker is listed: those with their default queue served, if there are any."""
        default = [handler for name, handler in self._served.items() if name == handler.ready_name]
        return [published_type(handler) for handler in default or self._handlers.values()]

    # --- lifecycle ---

    @property
    def is_cancelled(self) -> bool:
        """Whether the task of the worker was cancelled, as those of all handlers are when the event loop ends."""
        return self.closed or (self._task is not None and (self._task.cancelling() > 0 or self._task.done()))

    async def serve(self, started: Callable[[], None]) -> None:
        """Run jobs until `stop` is called, then drain. `started` is called when the worker is registered."""
        self._task = asyncio.current_task()
        await self.idle.check_health(self.settings, lambda: self._state.stops > 0)
        schedules = [one for one in self._app.handlers.schedules.values() if one.job_type in self._handlers]
        registration = WorkerRegistration(
            self.store, self.name, self._registered_types(), self._concurrency, self._running_jobs, started,
            schedules, code_release(self.settings, self._handlers), self._served,
        )  # fmt: skip
        watchdog = LoopWatchdog(self.loop, self._run_of)
        self.heartbeat.retain()
        watchdog.start()
        renewal = self.loop.create_task(registration.keep_registered())
        try:
            log.info("worker %s serves %s", self.name, ", ".join(self._served))
            while not self._state.stops:
                try:
                    await self._iterate()
                except Exception:
                    # A defect here must not stop all runs of the worker.
                    log.exception("worker %s: unexpected error; continuing", self.name)
                    await asyncio.sleep(IDLE_WAIT_SECONDS)
            await self._drain()
        except asyncio.CancelledError:
            # The event loop ends, as at the end of `asyncio.run`: without their outcomes, jobs were running until their leases end.
            while self._state.stops < 2:
                self.stop(self._state.stops + 1)
                with suppress(asyncio.CancelledError):  # again: then at once
                    await self._drain()
                    break
            raise
        finally:
            self.closed = True
            watchdog.close()
            await self._shut_down(renewal)
            if not self.idle.is_store_down:  # its registration expires soon anyway
                await registration.unregister()
            await self.store.close()
            log.info("worker %s ended", self.name)

    @property
    def stops(self) -> int:
        """Return how often the worker was stopped."""
        return self._state.stops

    def stop(self, stops: int) -> None:
        """Drain and end. With 2 stops, do not wait for code that ignores its stop. Thread-safe."""
        self._state.stop(stops)
        self.in_loop(self._on_stop)

    def in_loop(self, function: Callable[..., None], *args: Any) -> bool:
        """Call a function in the event loop, from any thread; return whether the loop still exists."""
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return False
        return True

    def _on_stop(self) -> None:
        log.info("worker %s %s", self.name, "stops at once" if self._state.stops >= 2 else "drains")
        self.idle.wake()
        if self._state.stops >= 2:
            for execution in list(self._state.running.values()):
                execution.run.stop(JobReleased("worker is stopping at once"))
                execution.force_stop()

    async def _shut_down(self, renewal: asyncio.Task[None]) -> None:
        renewal.cancel()
        await asyncio.gather(renewal, return_exceptions=True)
        await self.idle.close()
        left = self.settings.grace if self._state.stops < 2 else 1.0
        await asyncio.gather(self.hooks.finish(left), self.process_pool.close(left))
        self.threads.close()
        self.heartbeat.release()

    def _running_jobs(self) -> tuple[tuple[str, ...], bool]:
        return tuple(execution.job.job_id for execution in list(self._state.running.values())), self._state.stops > 0

    # --- one iteration ---

    async def _iterate(self) -> None:
        self._begin_ready()
        claim_size = self._state.claim_size(self._monotonic(), is_writing=bool(self._outbox))
        if self._outbox or claim_size:
            await self._write_and_claim(claim_size)
            await asyncio.sleep(0)  # a memory store never suspends; let the started tasks run
            return
        if self._is_over():
            self.stop(1)
        elif await self.idle.wait_for_wake(free=self._state.is_free):
            self._on_due()

    def _is_over(self) -> bool:
        """Return whether the worker has run all jobs that it may run, or has had none for the time after which it ends."""
        now = self._monotonic()
        if not self._state.is_idle or self._idle_since is None:
            self._idle_since = now
        if not self._state.is_idle:
            return False
        if self._state.is_spent:
            log.info("worker %s has run its jobs", self.name)
            return True
        if self._exit_when_idle is None or now - self._idle_since < self._exit_when_idle:
            return False
        log.info("worker %s had no job for %g s", self.name, self._exit_when_idle)
        return True

    def _on_due(self) -> None:
        self._state.should_claim = True

    async def _write_and_claim(self, claim_size: int) -> None:
        """Write outcomes and claim jobs in one round trip."""
        claim = self._claim_policy.make(claim_size)
        sent_at = self._monotonic()
        try:
            await self._outbox.renew(self.store, self.settings.lease_micros)
            applied = await self.store.apply(self._outbox.take(), claim)
        except (StoreError, LeaseHeldError) as error:
            self._outbox.failed(error)
            self._claim_policy.failed(claim, sent_at, error)
            await self.idle.back_off(error)
            return
        except (Exception, asyncio.CancelledError) as error:
            # A defect, or the end of the event loop. Perhaps everything is written: send it again, with the same operation ids.
            unknown = OutcomeUnknownError(f"apply: {error}")
            self._outbox.failed(unknown)
            self._claim_policy.failed(claim, sent_at, unknown)
            raise
        self.idle.on_store_reply()
        self._outbox.written(applied.outcomes)
        claimed = await self._claim_policy.read_reply(self.store, claim, applied, sent_at)
        if claim is None or claimed is None:
            return
        self._state.claimed(claimed, more=len(applied.claimed) >= len(claim.starts))
        self.idle.on_claim(is_empty=not applied.claimed)
        if not applied.claimed and self._state.running:
            self.heartbeat.wake()  # a stop may have woken this worker
        self.idle.due(None if applied.next_due is None else (applied.next_due - applied.now) / 1e6)
        if self._single_job_id is not None and not applied.claimed:
            await self._check_single_job()

    async def _check_single_job(self) -> None:
        """End the worker if its single job has ended."""
        job = await self.store.get(self._single_job_id or "")
        if job is None or job.is_terminal:
            self.stop(1)

    # --- beginning ---

    def _begin_ready(self) -> None:
        """Start the claimed jobs that may start now, and return those that may not."""
        while step := self._state.next(self._monotonic(), lambda: not self._outbox):
            action, claimed = step
            if action is Step.RELEASE:
                self._outbox.add(release_of(claimed))
            elif action is Step.BEGIN_HELD:
                self._start(self._take_held())
            elif action is Step.DROP_HELD:
                self._drop_held()
            elif execution := self._enter(claimed):
                if action is Step.HOLD:
                    self._state.hold(execution)
                    execution.run._on_stop = self._on_held_stop  # a stop meanwhile takes effect at once
                else:
                    self._start(execution)
        if self._state.has_ready and self._ready_timer is None:
            self._ready_timer = self.loop.call_later(START_DEADLINE, self._on_ready_timer)

    def _on_ready_timer(self) -> None:
        self._ready_timer = None
        self.idle.wake()

    def _enter(self, claimed: ClaimedJob) -> Execution | None:
        """Return the execution of a job, with the heartbeat renewing its lease. None if the record is damaged."""
        handler = self._handler(claimed.job)
        try:
            execution = self._kind(claimed.job, handler)(self, claimed.job, handler, claimed.sent_at)
        except (ValueError, TypeError, KeyError) as error:
            self._state.ended(claimed.job.record["token"])
            self._outbox.add(failure_of(claimed, error))
            return None
        execution.enter()
        return execution

    def _start(self, execution: Execution) -> None:
        self._state.started(execution.token, execution)
        execution.begin()

    def _on_held_stop(self, reason: RunStop) -> None:
        self.in_loop(self.idle.wake)

    def _take_held(self) -> Execution:
        execution = self._state.held
        assert execution is not None, "a suspect is held until it starts or is dropped"
        execution.run._on_stop = None
        return execution

    def _drop_held(self) -> None:
        """End the held suspect without having started its code."""
        execution = self._take_held()
        self._state.started(execution.token, execution)  # until its outcome is written
        execution.how = "never_started"
        execution.finish(execution.run._stop_reasons[0])

    def _handler(self, job: Job) -> Handler[Any, Any]:
        return self._app.handlers.get(job.job_type, self._handlers[job.job_type])  # it may have been redefined

    def _needs_exclusive_run(self, job: Job) -> bool:
        return is_crash_suspect(job) and self._kind(job, self._handler(job)) is not ProcessExecution

    def _kind(self, job: Job, handler: Handler[Any, Any]) -> type[Execution]:
        is_apart = is_crash_suspect(job) and handler.is_importable and job.job_type not in self.transaction_types
        if is_apart or handler.type_options.isolation == "process":
            return ProcessExecution
        return TaskExecution if handler.is_async else ThreadExecution

    # --- ending ---

    def ended(self, execution: Execution, end: RunOutcome) -> None:
        """Take the outcome of a run whose code has stopped. Thread-safe."""
        if threading.get_ident() == self._thread and not self.closed:
            self._on_end(execution, end)
            return
        if self.closed or not self.in_loop(self._on_end, execution, end):
            self.threads.submit(lambda: self._write_alone(end))

    def _on_end(self, execution: Execution, end: RunOutcome) -> None:
        self._state.ended(execution.token)
        if self.closed:
            self.threads.submit(lambda: self._write_alone(end))
            return
        self._state.finished(self._monotonic())
        stops = execution.run._stop_reasons
        if end.writes and not (stops and any(isinstance(stop, LeaseLost) for stop in stops)):
            self._outbox.add(end)
        if not self.idle.is_waiting_for_jobs:
            self._state.should_claim = True
        if self._state.has_ready:
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
        for execution in list(self._state.running.values()):
            if isinstance(execution, TaskExecution) and execution.task is task and isinstance(execution.run, Run):
                return execution.run
        return None

    # --- draining ---

    async def _drain(self) -> None:
        """Stop the running jobs and release each when its code has stopped, within the grace period."""
        self._release_ready()
        if self._state.held is not None:
            self._state.held.run.stop(JobReleased("worker is shutting down"))
            self._drop_held()
        for execution in list(self._state.running.values()):
            execution.stop(JobReleased("worker is shutting down"))
            if self._state.stops >= 2:
                execution.force_stop()
        over = self._monotonic() + self.settings.grace + 1.0
        must_repeat_claim = self._claim_policy.is_unanswered
        while self._monotonic() < over + LAST_WRITES_SECONDS:
            if must_repeat_claim and not self.idle.is_store_down:
                must_repeat_claim = False
                await self._release_unanswered()
            elif self._outbox:
                await self._write_and_claim(0)
                await asyncio.sleep(0)
            elif self._is_drained() or self._monotonic() > over or (self._state.stops >= 2 and not self._killing()):
                break
            else:
                await self.idle.wait_at_most(0.1)

    async def _release_unanswered(self) -> None:
        """Send the claim without a reply again, once, and release the jobs that the store has given it."""
        try:
            await self._write_and_claim(1)
        except Exception:  # a defect must not keep the outcomes of the runs from being written
            log.exception("worker %s: unexpected error; continuing", self.name)
        self._release_ready()

    def _release_ready(self) -> None:
        for claimed in self._state.clear():
            self._outbox.add(release_of(claimed))

    def _is_drained(self) -> bool:
        return all(execution.is_abandoned for execution in self._state.running.values())

    def _killing(self) -> bool:
        return any(isinstance(execution, ProcessExecution) for execution in self._state.running.values())
