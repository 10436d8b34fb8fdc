"""One claimed job while its code runs: as a task of the worker's event loop, or in a thread. Owns how the code is started,
told to stop and seen to have stopped; the loop that claimed it writes its end.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from milepost.core.encoding import from_json
from milepost.core.errors import JobReleased, JobTimedOut, Stop
from milepost.core.job import FailureKind, Job
from milepost.settings import Settings
from milepost.stores.protocol import Store
from milepost.tracking import capture
from milepost.tracking.block import StoreLink
from milepost.tracking.endings import Ended, Ending, ending, failed, resignation, retry_delay
from milepost.tracking.failures import of_exception
from milepost.tracking.pulse import Pulse, Unsent
from milepost.tracking.run import Run, hear_in_task
from milepost.worker.children import Children
from milepost.worker.handlers import Handler
from milepost.worker.threads import ThreadPool

log = logging.getLogger("milepost.worker")

MASK_LEAST = 3
"""Secrets shorter than this are not looked for in texts: they would mask half of every line."""


class Host(Protocol):
    """What an execution needs of its worker."""

    loop: asyncio.AbstractEventLoop
    store: Store
    pulse: Pulse
    settings: Settings
    threads: ThreadPool
    children: Children
    context: contextvars.Context
    """What every handler begins with; each gets a copy."""

    def ended(self, execution: Execution, end: Ending) -> None:
        """The code has stopped; from any thread."""

    def resigned(self, execution: Execution, end: Ending) -> None:
        """The code goes on past its grace time; `end` ends the run in the record."""


class Execution:
    """The run of one claimed job. `begin` it once; `stop` tells its code to stop."""

    def __init__(self, host: Host, job: Job, handler: Handler[Any, Any], claimed_at: float) -> None:
        self.host = host
        self.job = job
        self.handler = handler
        self.record = job.record
        self.token = self.record["token"]
        self.claimed_at = claimed_at
        self.has_resigned = False
        self._timers: list[asyncio.TimerHandle] = []
        self.run: Ended = self._make_run()

    def _make_run(self) -> Ended:
        record = self.record
        only = record.get("only_keys")
        link = StoreLink(self.host.store, self.host.pulse)
        run = Run(self.job, self.token, link, only=from_json(only) if only else None)
        if "secrets" in record:
            run.masks = masks_of(record.get("params", "{}"), record["secrets"])
        return run

    def enter(self) -> None:
        """Let the pulse keep the lease."""
        self.host.pulse.add(self.run, "stop", self.claimed_at)

    def begin(self) -> None:
        """Start the code. Called in the worker's event loop, after `enter`."""
        timeout = self.record.get("timeout")
        if timeout is not None:
            seconds = int(timeout) / 1_000_000
            reason = JobTimedOut(f"the time limit of {seconds:g} s has passed")
            self._timers.append(self.host.loop.call_later(seconds, self.stop, reason))
        try:
            params = self.handler.parameters.read(from_json(self.record.get("params", "{}")))
        except Exception as error:  # noqa: BLE001 - the user's own classes may raise anything
            self.finish(error, kind=FailureKind.BAD_PARAMETERS)
            return
        self._start(params)

    def _start(self, params: dict[str, Any]) -> None:
        raise NotImplementedError

    def stop(self, reason: Stop) -> None:
        """Tell the code to stop, and end the run in the record when it has not within the grace time."""
        self.run.stop(reason)
        self._timers.append(self.host.loop.call_later(self.host.settings.grace, self.insist))

    def insist(self) -> None:
        """The grace time is over, or there is none: what the record says no longer waits for the code."""
        if self.has_resigned or not self.run.stops:
            return
        end = resignation(self.run, delay=self.retry_delay(self.run.stops[0]), stack=self.stack())
        if end is not None:
            self.has_resigned = True
            log.warning("job %s (%s) goes on past its grace time", self.job.job_id, self.job.job_type)
            self.host.resigned(self, end)

    def stack(self) -> str | None:
        """Where the code is now, as text; None when that cannot be seen."""
        return None

    def retry_delay(self, error: BaseException | None) -> int | None:
        """Microseconds until the next attempt, if there is to be one."""
        return retry_delay(error, self.job.attempt)

    def finish(
        self,
        error: BaseException | None,
        result: Any = None,
        how: str = "cooperative",
        kind: FailureKind = FailureKind.ERROR,
    ) -> None:
        """The code has stopped: leave the pulse, and give the end to the worker. Never waits in the event loop."""

        def end_of(unsent: Unsent) -> Ending:
            delay = self.retry_delay(error) if error is not None and kind is FailureKind.ERROR else None
            if isinstance(error, Stop) or error is None:
                return ending(self.run, unsent, error, result=result, how=how, delay=delay)
            line, failure = of_exception(error, self.run, kind)
            return failed(self.run, unsent, line, failure, delay=delay, name=type(error).__name__)

        self.leave(end_of)

    def leave(self, end_of: Callable[[Unsent], Ending]) -> None:
        """Leave the pulse, in another thread when it is just speaking for this run."""
        for timer in self._timers:
            timer.cancel()  # only marks it, which any thread may do
        unsent = self.host.pulse.try_remove(self.run)
        if unsent is not None:
            self.host.ended(self, end_of(unsent))
        else:
            self.host.threads.submit(lambda: self.host.ended(self, end_of(self.host.pulse.remove(self.run))))


class InLoop(Execution):
    """An async handler, as a task of the worker's event loop."""

    task: asyncio.Task[None]

    def _start(self, params: dict[str, Any]) -> None:
        self.task = self.host.loop.create_task(self._main(params), context=self.host.context.copy())

    async def _main(self, params: dict[str, Any]) -> None:
        run, result, how = self.run, None, "cooperative"
        assert isinstance(run, Run), "a task runs in this process"
        told: Callable[[], bool] = bool
        caught: BaseException | None = None
        try:
            if not hasattr(self, "task"):  # the loop makes eager tasks, which begin before they are given
                await asyncio.sleep(0)
            told = hear_in_task(run, self.task, self.host.loop)
            if run.stops:
                how = "never started"
            run.check()
            captured = capture.begin(run, self.host.settings.captures, self.host.settings.redact)
            try:
                result = await self.handler.function(run, **params)
            finally:
                capture.end(run, captured)
        except BaseException as raised:  # noqa: BLE001 - whatever ends a handler ends its job, never the worker
            caught = raised
        run.on_stop = None
        error: BaseException | None = caught
        if isinstance(caught, asyncio.CancelledError):
            if run.stops and told():
                error, how = run.stops[0].with_traceback(caught.__traceback__), "task cancelled"
            elif self.task.cancelling():
                error = JobReleased("the worker's event loop ends")
        self.finish(error, result, how)

    def stack(self) -> str | None:
        frames = self.task.get_stack()
        return "".join(traceback.format_stack(frames[-1])) if frames else None


class InThread(Execution):
    """A sync handler, in a thread of its own."""

    _thread: int | None = None

    def _start(self, params: dict[str, Any]) -> None:
        self.host.threads.submit(lambda: self.host.context.copy().run(self._main, params))

    def _main(self, params: dict[str, Any]) -> None:
        self._thread = threading.get_ident()
        run, result, how = self.run, None, "cooperative"
        assert isinstance(run, Run), "a thread runs in this process"
        caught: BaseException | None = None
        try:
            if run.stops:
                how = "never started"
            run.check()
            captured = capture.begin(run, self.host.settings.captures, self.host.settings.redact)
            try:
                result = self.handler.function(run, **params)
            finally:
                capture.end(run, captured)
        except BaseException as raised:  # noqa: BLE001 - whatever ends a handler ends its job, never the worker
            caught = raised
        self._thread = None
        self.finish(caught, result, how)

    def stack(self) -> str | None:
        frame = sys._current_frames().get(self._thread or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else None


def masks_of(params: str, secrets: str) -> tuple[str, ...]:
    """The texts inside secret parameters, longest first, as they are and as JSON writes them."""
    values = from_json(params)
    found: set[str] = set()
    waiting = [values.get(name) for name in secrets.split("\x1f")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, str) and len(value) >= MASK_LEAST:
            found.update((value, value.replace("\\", "\\\\").replace('"', '\\"')))
    return tuple(sorted(found, key=len, reverse=True))
