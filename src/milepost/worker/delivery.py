"""One job that an engine has delivered: run under a lease, here and now, or refused because it is not to run (again).

Owns what a delivery may find and how its code is started, told to stop and ended; what the engine is told of that is the
engine's own module's. Knows no engine.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from milepost.core.encoding import ERROR_BYTES, from_json, one_line
from milepost.core.errors import InvalidInput, JobReleased, JobTimedOut, LeaseLost, Stop, StoreError
from milepost.core.job import FailureKind, Job
from milepost.core.lifecycle import plan_deliver, plan_handed, plan_stranded
from milepost.stores.driving import drive
from milepost.stores.ids import new_nonce, new_op
from milepost.stores.protocol import Outcome, Store, Write
from milepost.tracking import belonging
from milepost.tracking.block import Block, StoreLink, Wanted
from milepost.tracking.endings import Ending, ending, resignation, retry_delay
from milepost.tracking.process import process_name
from milepost.tracking.pulse import pulse_of
from milepost.tracking.run import Run, hear_in_task
from milepost.worker.application import Application
from milepost.worker.engine import Engine, EngineUnavailable
from milepost.worker.execution import masks_of
from milepost.worker.handlers import Handler

log = logging.getLogger("milepost.engine")

NO_HANDLER_AGAIN = 30_000_000
AGAIN_SECONDS = 0.5
START_PATIENCE = 10.0
"""Seconds that a delivery waits for a store that is away, before it gives its message up."""
EXIT_REASON_SECONDS = 1.0
"""How long code that its engine has ended waits to hear of a cancel, which may have come by way of the engine."""


def current_run() -> Run:
    """The run of the job that this code is part of; where it is part of none, one that tells nobody."""
    run = belonging.current()
    return run if run is not None else Run(Job.stored("none", {"type": "none", "progress": "0"}), "0:none", _Nowhere())


class _Nowhere:
    """Where the checkpoints of code go that is called as a plain function."""

    def checkpoint(self, run: Run, text: str) -> None:
        """Keep nothing."""

    async def acheckpoint(self, run: Run, text: str) -> None:
        """Keep nothing."""


class NotDelivered(Exception):
    """The job is not to run by this delivery; `.job` is its record, None when it is gone."""

    def __init__(self, job: Job | None) -> None:
        super().__init__("the job is gone" if job is None else f"job {job.job_id} is {job.status}")
        self.job = job


class EngineRetry(NamedTuple):
    """The engine will send the message again after `delay` seconds; `error` is why."""

    error: BaseException
    delay: float


class DeliveredRun(Run):
    """A run whose stop is followed up: by its engine, when the code goes on past the grace time."""

    follow_up: Callable[[Stop], None] | None = None

    @property
    def record(self) -> Mapping[str, str]:
        """The record as the delivery found it."""
        return self._job.record

    def stop(self, reason: Stop) -> None:
        """Tell the code to stop; the first reason counts."""
        first = not self.stops
        super().stop(reason)
        if first and self.follow_up is not None:
            self.follow_up(reason)


class Delivery(Block):
    """A message that has arrived. `begin`, run the code, `end`; in a thread, or awaited.

    `births` are writes that make the record where the message came before it. `message` is what the engine's `stop`
    takes. `decides`: where retries are the engine's, whether an error that leaves the code is one. `as_text`: a result that is
    not JSON is kept as its text, since the engine may carry more than that; otherwise the job fails.
    """

    on_silence = "stop"

    def __init__(
        self,
        app: Application,
        engine: Engine,
        job_id: str,
        *,
        message: Any = None,
        births: Sequence[Write] = (),
        decides: Callable[[BaseException], EngineRetry | None] | None = None,
        as_text: bool = False,
        store: Store | None = None,
    ) -> None:
        self.pulse = pulse_of(app.store, app.settings, app.ttl)
        super().__init__(
            Wanted(store if store is not None else self.pulse.store, app.settings, {}, job_id, {}, app.ttl)
        )
        self._pulse = self.pulse
        self._app = app
        self._engine = engine
        self._job_id = job_id
        self._message = message
        self._births = births
        self._decides = decides
        self._as_text = as_text
        self._timers: list[threading.Timer] = []
        self._has_resigned = False
        self._told = threading.Event()
        self._ended_by: str | None = None
        self._over = threading.Lock()
        self._is_over = False
        self.how = "cooperative"

    @property
    def run(self) -> DeliveredRun:
        """The run, once it has begun."""
        assert isinstance(self._run, DeliveredRun), "a delivery has begun"
        return self._run

    # --- beginning ---

    async def begin(self) -> DeliveredRun:
        """Take the lease: one round trip. Raises NotDelivered when the job is not to run now."""
        await self._start()
        run = self.run
        timeout = run.record.get("timeout")
        if timeout is not None:
            seconds = int(timeout) / 1_000_000
            self._later(seconds, lambda: run.stop(JobTimedOut(f"the time limit of {seconds:g} s has passed")))
        return run

    async def _begin(self) -> Job:
        lease = self._wanted.settings.lease_micros
        start = plan_deliver(new_op(), nonce=new_nonce(), lease=lease, worker=process_name())
        outcome = (await self._patiently([*self._births, Write(self._job_id, start)], START_PATIENCE))[-1]
        if outcome.accepted and outcome.job is not None:
            return outcome.job
        log.info("job %s is not run by this delivery: %s", self._job_id, outcome.job.status if outcome.job else "gone")
        raise NotDelivered(outcome.job)

    def _make_run(self, job: Job, link: StoreLink) -> DeliveredRun:
        record = job.record
        only = record.get("only_keys")
        run = DeliveredRun(job, record["token"], link, only=from_json(only) if only else None)
        if "secrets" in record:
            run.masks = masks_of(record.get("params", "{}"), record["secrets"])
        run.follow_up = self._follow_up
        return run

    # --- being told to stop ---

    def _follow_up(self, reason: Stop) -> None:
        self._told.set()
        if isinstance(reason, LeaseLost):
            return  # whoever has the lease now answers for the job; this code can write nothing
        self._later(self._wanted.settings.grace, lambda: self._insist(hard=False))

    def _insist(self, *, hard: bool) -> None:
        """The grace time is over: the record no longer waits for the code, and the engine is asked to end it."""
        run = self.run
        if not self._has_resigned:
            self._has_resigned = True
            log.warning("job %s (%s) goes on past its grace time", run.job_id, run.job_type)
            end = resignation(run, delay=self._retry_delay(run.stops[0]))
            if end is not None:
                self._resign(end)
        with self._over:
            if self._is_over:
                return
            try:
                self._ended_by = self._engine.stop(self._message, hard=hard)
            except EngineUnavailable as error:
                log.warning("job %s: %s cannot be asked to end it yet: %s", run.job_id, self._engine.name, error)
                self._later(max(AGAIN_SECONDS, self._wanted.settings.grace), lambda: self._insist(hard=hard))
                return
        if self._ended_by is not None and not hard:
            self._later(self._wanted.settings.grace, lambda: self._insist(hard=True))

    def _resign(self, end: Ending) -> None:
        """End the run in the record while its code goes on; again until the store takes it, or the code ends it itself."""
        try:
            drive(self.pulse.store.apply(end.writes))
        except StoreError as error:
            log.warning("job %s: its end could not be written yet: %s", self._job_id, error)
            if not self._is_over:
                self._later(AGAIN_SECONDS, lambda: self._resign(end))

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, function)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    # --- running ---

    def execute(self, code: Callable[[DeliveredRun], Any]) -> Any:
        """Begin, run the code in this thread, end. Gives its result, and raises what it has raised. NotDelivered."""
        run = drive(self.begin())
        error: BaseException | None = None
        result: Any = None
        try:
            try:
                self._check_at_start(run)
                result = code(run)
            finally:
                with self._over:  # from here on nobody asks the engine to end this thread
                    self._is_over = True
        except BaseException as raised:  # noqa: BLE001 - whatever ends the code ends its job; it is raised again below
            error = raised
        drive(self.end(self._as_exit(error), result))
        if error is not None:
            raise error
        return result

    def _as_exit(self, error: BaseException | None) -> BaseException | None:
        """What ended the code, where that was the engine: the stop that was asked for, or the end of its worker."""
        if error is None or isinstance(error, Stop) or not self._engine.is_exit(error):
            return error
        self._told.wait(EXIT_REASON_SECONDS)
        if not self.run.stops:
            return JobReleased("the engine's worker ends")
        self.how = self._ended_by or "terminated"
        return self.run.stops[0]

    async def aexecute(self, code: Callable[[DeliveredRun], Awaitable[Any]]) -> Any:
        """The same for code in an event loop: a stop cancels its task at its next await."""
        run = await self.begin()
        error: BaseException | None = None
        result: Any = None
        try:
            self._check_at_start(run)
            result = await self.awaited(run, code(run))
        except BaseException as raised:  # noqa: BLE001 - as above
            error = raised
        await self.end(error, result)
        if error is not None:
            raise error
        return result

    async def awaited(self, run: Run, work: Awaitable[Any]) -> Any:
        """Await the work in this task; a cancel of the task that is not ours is the engine's, and gives the job back."""
        task = asyncio.current_task()
        assert task is not None, "runs in a task"
        told = hear_in_task(run, task, asyncio.get_running_loop())
        try:
            return await work
        except asyncio.CancelledError:
            if not (run.stops and told()):
                raise JobReleased("the engine's worker ends") from None
            task.uncancel()
            self.how = "task cancelled"
            raise run.stops[0] from None
        finally:
            run.on_stop = None

    def _check_at_start(self, run: Run) -> None:
        if run.stops:
            self.how = "never started"
        run.check()

    # --- ending ---

    async def end(self, error: BaseException | None, result: Any = None) -> None:
        """Write the end: one round trip, tried again for as long as a lease where the store is away."""
        self._is_over = True
        for timer in tuple(self._timers):
            timer.cancel()
        self._end_capture()
        run, unsent = self._let_go()
        self.run.follow_up = None  # it leads back to this, and nothing of a job is to wait for the collector
        decided = self._decides(error) if self._decides is not None and error is not None else None
        bad = isinstance(error, BadParameters)
        end = ending(
            run,
            unsent,
            error if decided is None else decided.error,
            result=result,
            how=self.how,
            kind=FailureKind.BAD_PARAMETERS if bad else FailureKind.ERROR,
            delay=None if bad else self._retry_delay(error),
        )
        if end.refused is not None and self._as_text:
            end = ending(run, unsent, None, result=one_line(repr(result), ERROR_BYTES))
        if decided is not None:
            again = int((decided.delay + self._engine.lost_after) * 1_000_000)
            await self._persist(end, Write(run.job_id, plan_handed(new_op(), again), answer=False))
        else:
            await self._persist(end)

    async def _persist(self, end: Ending, *more: Write) -> None:
        if not end.writes:
            return
        patience = self._wanted.settings.lease
        try:
            outcome = (await self._patiently([*end.writes, *more], patience))[len(end.writes) - 1]
            if not outcome.accepted and end.late is not None:
                await self._patiently([Write(self._job_id, end.late.plan(), answer=False)], patience)
        except StoreError as error:
            log.error("job %s: its end could not be written: %s", self._job_id, error)

    async def _patiently(self, writes: Sequence[Write], patience: float) -> list[Outcome]:
        """Apply some writes; where the store is away try again, for so many seconds."""
        store = self._wanted.store
        until = time.monotonic() + patience
        while True:
            try:
                return (await store.apply(writes)).outcomes
            except StoreError as error:
                if time.monotonic() > until:
                    raise
                log.warning("job %s waits for the store: %s", self._job_id, error)
            if store.blocking:
                threading.Event().wait(AGAIN_SECONDS)
            else:
                await asyncio.sleep(AGAIN_SECONDS)

    def _retry_delay(self, error: BaseException | None) -> int | None:
        if self._decides is not None:
            return 0 if error is not None and self._decides(error) is not None else None
        return retry_delay(error, self.run.attempt)


# --- jobs of handlers ---


class BadParameters(InvalidInput):
    """The parameters in the record are not what the handler takes."""


def _checked(handler: Handler[Any, Any], run: DeliveredRun) -> dict[str, Any]:
    try:
        return handler.parameters.read(from_json(run.record.get("params", "{}")))
    except InvalidInput as error:
        raise BadParameters(error.field, error.problem) from None
    except ValueError as error:
        raise BadParameters("params", str(error)) from None


def deliver(app: Application, engine: Engine, job_id: str, job_type: str, message: Any = None) -> Any:
    """Run a delivered job by its handler, in this thread; an async handler in an event loop of its own. See `execute`."""
    handler = app.handlers.get(job_type)
    delivery = Delivery(app, engine, job_id, message=message)
    if handler is None:
        drive(_strand(delivery.pulse.store, job_id, job_type))
        raise NotDelivered(None)

    def code(run: DeliveredRun) -> Any:
        params = _checked(handler, run)
        if not handler.is_async:
            return handler.function(run, **params)
        return asyncio.run(delivery.awaited(run, handler.function(run, **params)))

    return delivery.execute(code)


async def adeliver(
    app: Application, engine: Engine, job_id: str, job_type: str, message: Any = None, *, store: Store
) -> Any:
    """The same in an event loop, over a `store` of the asynchronous kind; a sync handler in a thread."""
    handler = app.handlers.get(job_type)
    if handler is None or not handler.is_async:
        return await asyncio.to_thread(deliver, app, engine, job_id, job_type, message)
    delivery = Delivery(app, engine, job_id, message=message, store=store)

    async def code(run: DeliveredRun) -> Any:
        return await handler.function(run, **_checked(handler, run))

    return await delivery.aexecute(code)


async def _strand(store: Store, job_id: str, job_type: str) -> None:
    """Another worker may have the handler: the job waits, and says why."""
    reason = f"{process_name().split(':')[0]} has no handler for {job_type!r}"
    log.warning("job %s: %s", job_id, reason)
    await store.apply([Write(job_id, plan_stranded(new_op(), NO_HANDLER_AGAIN, reason), answer=False)])
