"""The claim loop: takes jobs within its free slots, hands them to executions, and writes their ends, in one round trip.

Owns when to claim, to wait, to give back and to stop. How code runs is `execution`'s and `isolated`'s, how an end is written
`tracking.endings`'s, what is atomic the store's.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInput, JobReleased, StoreError
from milepost.core.job import FailureKind, Job
from milepost.core.lifecycle import plan_fail, plan_release
from milepost.stores.driving import drive
from milepost.stores.ids import new_op
from milepost.stores.protocol import Write
from milepost.tracking.endings import Ending, Late
from milepost.tracking.failures import of_exception
from milepost.tracking.process import process_name
from milepost.tracking.pulse import pulse_of
from milepost.tracking.run import Run
from milepost.worker.application import Application
from milepost.worker.children import Children
from milepost.worker.claiming import BEGINS_WITHIN, Claims, limits_of
from milepost.worker.execution import Execution, InLoop, InThread
from milepost.worker.handlers import Handler, find_handler
from milepost.worker.isolated import InProcess
from milepost.worker.presence import Presence
from milepost.worker.published import type_of
from milepost.worker.threads import ThreadPool
from milepost.worker.waiting import IDLE_SECONDS, Waiting
from milepost.worker.watchdog import Watchdog

log = logging.getLogger("milepost.worker")
log.addHandler(logging.NullHandler())

CONCURRENCY = 10
WRITES_MOST = 600
LAST_WRITES_SECONDS = 5.0

_numbers = itertools.count(1)


class _Claimed(NamedTuple):
    """A job that has not begun: when its claim was sent, and when it came."""

    job: Job
    sent_at: float
    came_at: float


class Worker:
    """Runs the jobs of an application until it is told to stop: `serve` in an event loop, or `run` in a thread.

    `concurrency` is the most jobs at once (default 10); `queues` the types to serve (default: all that the application
    has handlers for); `only` the id of the one job to claim, after whose end the worker ends.
    """

    def __init__(
        self, app: Application, *, concurrency: int | None = None, queues: Iterable[str] | None = None, only: str | None = None
    ) -> None:  # fmt: skip
        most = CONCURRENCY if concurrency is None else concurrency
        if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= 10_000:
            raise InvalidInput("concurrency", f"{concurrency!r:.40} must be a whole number from 1 to 10000")
        self.concurrency = most
        self.settings = app.settings
        self.started = threading.Event()
        self.closed = False
        self.name = ""
        self.handlers = app.handlers.chosen(queues)
        self._app = app
        self._only = only
        self._number = next(_numbers)
        self._running: dict[str, Execution] = {}
        self._ready: deque[_Claimed] = deque()
        self._ended: deque[Ending] = deque()
        self._ready_timer: asyncio.TimerHandle | None = None
        self._alone: Execution | None = None
        self._hungry = True
        self._stopping = 0

    # --- life ---

    async def serve(self) -> None:
        """Work until `stop` is called, then drain: what runs is told to stop and given back, at no cost of an attempt."""
        self._check_handlers()
        self.loop = asyncio.get_running_loop()
        self.name = f"{process_name()}:{self._number}"
        self.store = self._app.store.twin(blocking=True).twin(blocking=False)
        self.pulse = pulse_of(self._app.store, self.settings, self._app.ttl)
        self.threads = ThreadPool(f"milepost-worker-{self._number}")
        self.children = Children(self.loop)
        self._thread = threading.get_ident()
        self.context = contextvars.copy_context()
        self._claims = Claims(self.name, limits_of(self.handlers), self.settings.lease_micros, self._only)
        self.waiting = Waiting(self.store, self.name, tuple(self.handlers), self.pulse.wake, self._on_due)
        types = [type_of(handler) for handler in self.handlers.values()]
        presence = Presence(self.store, self.name, types, self.concurrency, self._what_runs, self.started.set)
        watchdog = Watchdog(self.loop, self._run_of)
        self.pulse.keep_sweeping(True)
        watchdog.start()
        heart = self.loop.create_task(presence.keep())
        try:
            log.info("worker %s serves %s", self.name, ", ".join(self.handlers))
            while not self._stopping:
                try:
                    await self._turn()
                except Exception:
                    # A defect here must not silence every run of the worker.
                    log.exception("worker %s met an unexpected error; it goes on", self.name)
                    await asyncio.sleep(IDLE_SECONDS)
            await self._drain()
        finally:
            self.closed = True
            watchdog.close()
            await self._leave(heart)
            await presence.sign_off()
            await self.store.close()
            log.info("worker %s has ended", self.name)

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping > 0

    def run(self) -> int:
        """Serve in this, the main, thread until SIGTERM or SIGINT; the second of them ends it at once. The exit code."""
        from milepost.worker.hosting import run_in_main_thread

        return run_in_main_thread(self)

    def stop(self, *, at_once: bool = False) -> None:
        """Drain and end, from any thread; called again, or with `at_once`, without waiting for code that goes on."""
        self._stopping = max(self._stopping + 1, 2 if at_once else 1)
        try:
            self.loop.call_soon_threadsafe(self._on_stop)
        except (AttributeError, RuntimeError):
            pass  # not begun yet, or ended already

    def _on_stop(self) -> None:
        self.waiting.wake()
        if self._stopping >= 2:
            for execution in tuple(self._running.values()):
                execution.run.stop(JobReleased("the worker stops at once"))
                execution.insist()

    def _check_handlers(self) -> None:
        for handler in self.handlers.values():
            if handler.type_options.isolation == "process":
                handler.refuse_unless_importable()
                find_handler(handler.reference)

    async def _leave(self, heart: asyncio.Task[None]) -> None:
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)
        await self.waiting.close()
        await self.children.close(self.settings.grace if self._stopping < 2 else 1.0)
        self.threads.close()
        self.pulse.keep_sweeping(False)

    def _what_runs(self) -> tuple[tuple[str, ...], bool]:
        running = tuple(execution.job.job_id for execution in tuple(self._running.values()))
        return running, self._stopping > 0

    # --- one turn ---

    async def _turn(self) -> None:
        self._begin_ready()
        ends = self._take_ends()
        wanted = self._wanted() if ends or self._hungry else 0
        if ends or wanted:
            await self._exchange(ends, wanted)
            await asyncio.sleep(0)  # a store in memory never suspends, and what was begun is to have its turn
            return
        free = self._alone is None and self._only is None and len(self._running) + len(self._ready) < self.concurrency
        if await self.waiting.rest(free=free):
            self._hungry = True

    def _take_ends(self) -> list[Ending]:
        ends: list[Ending] = []
        size = 0
        while self._ended and size < WRITES_MOST:
            end = self._ended.popleft()
            ends.append(end)
            size += len(end.writes)
        return ends

    def _wanted(self) -> int:
        """How many jobs to claim: the free slots, and as many as were finished in the last 50 ms."""
        if self._stopping or self._alone is not None:
            return 0
        if self._only is not None:
            return 0 if self._running or self._ready else 1
        free = self.concurrency - len(self._running)
        return free + self._claims.lately() - len(self._ready)

    def _on_due(self) -> None:
        self._hungry = True

    async def _exchange(self, ends: list[Ending], wanted: int) -> None:
        """One round trip: the ends of what has finished, and a claim."""
        claim = self._claims.make(wanted)
        writes = [write for end in ends for write in end.writes]
        sent_at = time.monotonic()
        try:
            applied = await self.store.apply(writes, claim)
        except StoreError as error:
            self._ended.extendleft(reversed(ends))
            self._claims.unanswered(claim, sent_at)
            await self.waiting.back_off(error)
            return
        self.waiting.is_back()
        place = 0
        for end in ends:
            place += len(end.writes)
            if not applied.outcomes[place - 1].accepted and end.late is not None:
                job_id = end.writes[-1].job_id
                self._ended.append(Ending([Write(job_id, end.late.plan(), answer=False)], None))
        if claim is None:
            return
        came_at = time.monotonic()
        claimed = self._claims.answered(claim, applied.claimed)
        self._ready.extend(_Claimed(job, sent_at, came_at) for job in claimed)
        self._hungry = len(applied.claimed) >= len(claim.starts)
        if not applied.claimed and self._running:
            self.pulse.wake()  # it may have been a stop that woke this worker
        self.waiting.due(None if applied.next_due is None else (applied.next_due - applied.now) / 1e6)
        if self._only is not None and not applied.claimed:
            await self._look_at_only()

    async def _look_at_only(self) -> None:
        """End with the one job that this worker is for."""
        job = await self.store.get(self._only or "")
        if job is None or job.is_terminal:
            self.stop()

    # --- beginning ---

    def _begin_ready(self) -> None:
        """Begin what was claimed while slots are free; give back what has waited for too long."""
        ready, running = self._ready, self._running
        while ready and not self._stopping and self._alone is None and len(running) < self.concurrency:
            claimed = ready.popleft()
            if time.monotonic() - claimed.came_at > BEGINS_WITHIN:
                self._give_back(claimed)
                continue
            self._begin(claimed)
        while ready and time.monotonic() - ready[0].came_at > BEGINS_WITHIN:
            self._give_back(ready.popleft())
        if ready and self._ready_timer is None:
            self._ready_timer = self.loop.call_later(BEGINS_WITHIN, self._on_ready_timer)

    def _on_ready_timer(self) -> None:
        self._ready_timer = None
        self.waiting.wake()

    def _begin(self, claimed: _Claimed) -> None:
        job_type = claimed.job.job_type
        handler = self._app.handlers.get(job_type, self.handlers[job_type])  # it may have been defined anew since
        kind = self._kind(claimed.job, handler)
        try:
            execution = kind(self, claimed.job, handler, claimed.sent_at)
        except (ValueError, TypeError, KeyError) as error:  # the record is damaged
            self._cannot_begin(claimed, error)
            return
        execution.enter()
        if execution.record.get("suspect") == "1" and kind is not InProcess and self._running:
            self._alone = execution  # a crash is to be charged to it alone, and no other process can run it
            return
        self._running[execution.token] = execution
        execution.begin()

    def _kind(self, job: Job, handler: Handler[Any, Any]) -> type[Execution]:
        suspect = job.record.get("suspect") == "1" and handler.is_importable
        if handler.type_options.isolation == "process" or suspect:
            return InProcess
        return InLoop if handler.is_async else InThread

    def _cannot_begin(self, claimed: _Claimed, error: Exception) -> None:
        line, failure = of_exception(error, None, FailureKind.BAD_PARAMETERS)
        plan = plan_fail(new_op(), claimed.job.record["token"], error=line, failure=failure, report={})
        self._ended.append(Ending([Write(claimed.job.job_id, plan, answer=False)], None))

    def _give_back(self, claimed: _Claimed) -> None:
        """Return a job that has not begun, uncounted."""
        job, token = claimed.job, claimed.job.record["token"]
        late = Late(token, "never started")
        self._ended.append(Ending([Write(job.job_id, plan_release(new_op(), token, {}), answer=False)], late))

    # --- ending ---

    def ended(self, execution: Execution, end: Ending) -> None:
        """The code of a run has stopped; from any thread."""
        if threading.get_ident() == self._thread and not self.closed:
            self._on_end(execution, end)
            return
        try:
            if not self.closed:
                self.loop.call_soon_threadsafe(self._on_end, execution, end)
                return
        except RuntimeError:
            pass  # the loop was closed just now
        self.threads.submit(lambda: self._write_alone(end))

    def _on_end(self, execution: Execution, end: Ending) -> None:
        self._running.pop(execution.token, None)
        if self.closed:
            self.threads.submit(lambda: self._write_alone(end))
            return
        self._claims.finished()
        if end.writes:
            self._ended.append(end)
        if not self.waiting.hears_of_jobs:
            self._hungry = True
        if self._ready:
            self._begin_ready()
        elif self._alone is not None and not self._running and not self._stopping:
            execution, self._alone = self._alone, None
            self._running[execution.token] = execution
            execution.begin()
        self.waiting.wake()

    def _write_alone(self, end: Ending) -> None:
        """Write the end of code that went on after its worker had ended."""
        store = self.pulse.store
        try:
            if end.writes and not drive(store.apply(end.writes)).outcomes[-1].accepted and end.late is not None:
                drive(store.apply([Write(end.writes[-1].job_id, end.late.plan(), answer=False)]))
        except StoreError as error:
            log.warning("job %s: its end could not be written: %s", end.writes[-1].job_id, error)

    def resigned(self, execution: Execution, end: Ending) -> None:
        """The code goes on past its grace time: end the run in the record."""
        self._ended.append(end)
        self.waiting.wake()

    def _run_of(self, task: asyncio.Task[object]) -> Run | None:
        for execution in tuple(self._running.values()):
            if isinstance(execution, InLoop) and execution.task is task and isinstance(execution.run, Run):
                return execution.run
        return None

    # --- draining ---

    async def _drain(self) -> None:
        """Stop what runs under its live lease, release each when its code has stopped, within the grace time."""
        while self._ready:
            self._give_back(self._ready.popleft())
        if self._alone is not None:
            self._alone.leave(lambda unsent: Ending([], None))
            self._give_back(_Claimed(self._alone.job, 0.0, 0.0))
            self._alone = None
        for execution in tuple(self._running.values()):
            execution.stop(JobReleased("the worker shuts down"))
            if self._stopping >= 2:
                execution.insist()
        over = time.monotonic() + self.settings.grace + 1.0
        while not self._is_drained() and time.monotonic() < over + LAST_WRITES_SECONDS:
            ends = self._take_ends()
            if ends:
                await self._exchange(ends, 0)
                await asyncio.sleep(0)
            elif time.monotonic() > over or (self._stopping >= 2 and not self._killing()):
                break
            else:
                await self.waiting.within(0.1)

    def _is_drained(self) -> bool:
        return not self._ended and all(execution.has_resigned for execution in self._running.values())

    def _killing(self) -> bool:
        return any(isinstance(execution, InProcess) for execution in self._running.values())
