"""Runs the claimable jobs of an application in the code of a test, one after another, as a worker would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

from milepost.core.errors import InvalidInputError, RunStop
from milepost.core.job import FailureKind, Job, JobStatus
from milepost.manager.schedules import declare
from milepost.run.execution import Ended, LeasedExecution
from milepost.run.process_identity import process_name
from milepost.run.run import Run
from milepost.run.sweeper import Sweeper
from milepost.stores.protocol import KeyValueStore, Select, Store, WriteResult
from milepost.worker.event_loop import run_in_new_loop
from milepost.worker.handlers import Application, Handler, code_release
from milepost.worker.store_requests import ClaimPolicy, limits_of, with_large_values

PENDING_READ = 1000
Errors = Literal["raise", "collect"]


async def drain(
    app: Application, errors: Errors, limit: int, execute: Callable[[Application, Job], DrainedExecution] | None = None
) -> list[Job]:
    """Run the claimable jobs until none is left; return the record after each attempt. See `JobsUnderTest.drain`.

    Over a blocking store handlers run in this thread, async ones in a new event loop; over an async store async handlers
    run in this event loop, the others in a thread.
    """
    if errors not in ("raise", "collect"):
        raise InvalidInputError("errors", f"{errors!r:.40} must be 'raise' or 'collect'")
    ran: list[Job] = []
    runtime, settings = app.runtime, app.settings
    release = code_release(settings, app.handlers)
    worker = f"{process_name()}:drain"
    sweeper = Sweeper(app.store, settings, runtime.ttl, clock=runtime.clock, ids=runtime.ids)
    await declare_schedules(app, app.store)
    await sweeper.purge()
    while True:
        await sweeper.sweep()
        served = app.handlers.served([*app.handlers, *await _queues_of(app.store)])
        policy = ClaimPolicy(worker, limits_of(served), settings.lease_micros, None, release, ids=runtime.ids)
        claimed = (await app.store.apply([], policy.make(1))).claimed if served else []
        if not claimed:
            return ran
        if len(ran) >= limit:
            raise AssertionError(f"jobs are still claimable after {limit} attempts; the last was {claimed[0].job_type}")
        job = await with_large_values(app.store, claimed[0])
        ended, error = await (execute or DrainedExecution)(app, job).run_to_end()
        ran.append(ended)
        is_exit = error is not None and not isinstance(error, Exception | RunStop)  # Ctrl-C, or pytest.fail()
        if error is not None and (is_exit or (errors == "raise" and ended.status is JobStatus.FAILED)):
            raise error


async def declare_schedules(app: Application, store: Store) -> None:
    """Write the schedules that the code of an application declares, as its worker does."""
    await declare(store, app.handlers.schedules.values(), code_release(app.settings, app.handlers), _no_workers)


async def _no_workers(_: KeyValueStore) -> frozenset[str]:
    return frozenset()


async def _queues_of(store: Store) -> set[str]:
    """Return the named queues of the pending jobs, of which those without a worker would wait otherwise."""
    pending = await store.select(Select(statuses=("pending",)), PENDING_READ)
    return {job.queue for job in pending if job.queue}


class DrainedExecution(LeasedExecution):
    """The execution of one claimed job."""

    interrupt_cancels = False
    can_suspend = True

    def __init__(self, app: Application, job: Job) -> None:
        super().__init__(app.settings.captures, app.settings.redact)
        self._app = app
        self._job = job
        self._handler: Handler[Any, Any] = app.handlers[job.job_type]
        self.run_type = self._handler.run_type
        self._timers: list[threading.Timer] = []
        self._replies: list[WriteResult] = []
        self.on_reply = self._replies.append

    async def take_lease(self) -> Job:
        return self._job

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, function)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def retry_delay(self, error: BaseException) -> int | None:
        return self._handler.type_options.retry.delay(error, self._job.attempt)

    async def run_to_end(self) -> tuple[Job, BaseException | None]:
        """Run the job, write its outcome, call its hook, and return the record and the error of its code."""
        run = await self.start(self._app.runtime)
        try:
            params = self._handler.parameters.of(self._job.record)
        except InvalidInputError as refused:
            await self._end(refused, None, FailureKind.BAD_PARAMETERS)
            return await self._record(run), refused
        self.start_timeout()
        error, value = await self._call(run, params)
        for timer in self._timers:
            timer.cancel()
        await self._end(error, value, FailureKind.ERROR)
        return await self._record(run), error

    async def _call(self, run: Run, params: Mapping[str, Any]) -> Ended:
        function = self._handler.function
        if self._handler.is_async:
            work = self.acall(lambda: function(run, **params))
            return run_in_new_loop(work) if self._app.store.blocking else await work
        if self._app.store.blocking:
            return self.call(lambda: function(run, **params))
        return await asyncio.to_thread(self.call, lambda: function(run, **params))

    async def _end(self, error: BaseException | None, value: Any, kind: FailureKind) -> None:
        result = self.result(error, value)
        delay = self.retry_delay(error) if error is not None and kind is FailureKind.ERROR else None
        pending = await self.detach()
        await self.answered(self.outcome(pending, error, result, kind=kind, delay=delay)).write(self._app.store.apply)
        hooks = self._handler.type_options.hooks
        for reply in self._replies if hooks is not None else ():
            assert hooks is not None
            if self._app.store.blocking:
                hooks.call(reply, self._job.attempt)
            else:
                await hooks.acall(reply, self._job.attempt)

    async def _record(self, run: Run) -> Job:
        return await self._app.store.get(run.job_id) or self._job
