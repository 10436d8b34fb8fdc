"""`track`: a block of code as a job, under a lease. Owns how such a run starts, is taken up again, and ends.

Sync and async blocks share everything but the waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from milepost.core.change import Change
from milepost.core.errors import (
    DuplicateJob,
    InvalidInput,
    JobIsLeased,
    Stop,
    StoreError,
)
from milepost.core.job import FailureKind, Job
from milepost.core.lifecycle import plan_adopt, plan_checkpoint, plan_reopen, plan_track
from milepost.settings import Settings
from milepost.stores.driving import drive
from milepost.stores.ids import new_job_id, new_nonce, new_op
from milepost.stores.protocol import Outcome, Store, Write
from milepost.tracking import capture
from milepost.tracking.endings import Ending, ending
from milepost.tracking.failures import of_record, redaction
from milepost.tracking.process import is_dead, process_name
from milepost.tracking.pulse import OnSilence, Pulse, Unsent, pulse_of, why_stopped
from milepost.tracking.run import Run, hear_in_task, log

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `track` was asked for: the fields of a new record, and the id that it is to have or to adopt."""

    store: Store
    settings: Settings
    fields: dict[str, str]
    job_id: str | None
    plan: dict[str, float]
    ttl: float


class StoreLink:
    """How a run of this process writes its checkpoints."""

    def __init__(self, store: Store, pulse: Pulse) -> None:
        self._store = store
        self._pulse = pulse

    def checkpoint(self, run: Run, text: str) -> None:
        drive(_checkpoint(self._pulse.store, run, text))

    async def acheckpoint(self, run: Run, text: str) -> None:
        await _checkpoint(self._store, run, text)


async def _checkpoint(store: Store, run: Run, text: str) -> None:
    """Write a checkpoint with what the run says; a refusal tells the run why it is to stop."""
    write = Write(run.job_id, plan_checkpoint(new_op(), run.token, text, run.report()), answer=False)
    try:
        outcome = (await store.apply([write])).outcomes[0]
    except StoreError as error:
        log.warning("job %s: a checkpoint could not be written, the work goes on: %s", run.job_id, error)
        return
    if not outcome.accepted:
        run.stop(why_stopped(outcome.job, run.token, "stopping" if outcome.job is None else "lost"))


class Block:
    """Code that runs under a lease in this process, whatever its face: how its run begins, and how it ends."""

    on_silence: OnSilence = "go on"

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._run: Run | None = None
        self._pulse: Pulse | None = None
        self._captured: capture.Begun | None = None

    async def _start(self) -> Run:
        wanted = self._wanted
        if self._run is not None:
            raise InvalidInput("track", "this block was entered before; call track() again for another run")
        redaction(wanted.settings.redact)  # refused before there is a job
        sent_at = time.monotonic()
        job = await self._begin()
        if self._pulse is None:
            self._pulse = pulse_of(wanted.store, wanted.settings, wanted.ttl)
        self._run = self._make_run(job, StoreLink(wanted.store, self._pulse))
        self._pulse.add(self._run, self.on_silence, sent_at if self.on_silence == "stop" else None)
        self._captured = capture.begin(self._run, wanted.settings.captures, wanted.settings.redact)
        return self._run

    async def _begin(self) -> Job:
        """The record, under a lease that this process has taken."""
        return await _begin(self._wanted)

    def _make_run(self, job: Job, link: StoreLink) -> Run:
        return Run(job, job.record["token"], link, plan=self._wanted.plan)

    def _retry_delay(self, error: BaseException | None) -> int | None:
        """Microseconds until the next attempt after that error; None where nobody would make one."""
        return None

    def _end_capture(self) -> None:
        """The code is over; to be called where it ran, before the run is let go."""
        assert self._run is not None, "a block ends after it has begun"
        assert self._captured is not None, "a block ends after it has begun"
        capture.end(self._run, self._captured)

    def _let_go(self) -> tuple[Run, Unsent]:
        assert self._run is not None, "a block ends after it has begun"
        assert self._pulse is not None, "a block ends after it has begun"
        return self._run, self._pulse.remove(self._run)

    async def _finish(self, run: Run, unsent: Unsent, error: BaseException | None, how: str) -> BaseException | None:
        """Write the end of the run; gives what the block is to raise in place of its own exception, if anything."""
        end = ending(run, unsent, error, result=run.result, how=how, delay=self._retry_delay(error))
        try:
            refused = await self._write(run, end)
        except StoreError as failure:
            if error is None:
                raise
            log.error("job %s: its end could not be written: %s", run.job_id, failure)
            return None
        if error is None and refused is not None:
            return refused
        if end.refused is not None:
            return InvalidInput("result", "is not JSON; the job has failed as not_serialisable")
        return None

    async def _write(self, run: Run, end: Ending) -> Stop | None:
        """Send the end; when the job was ended meanwhile, the receipt. Gives why the run should have stopped."""
        if not end.writes:
            return None
        store = self._wanted.store
        outcome = (await store.apply(end.writes)).outcomes[-1]
        if outcome.accepted or end.late is None:
            return None
        receipt = (await store.apply([Write(run.job_id, end.late.plan())])).outcomes[0]
        job = receipt.job if receipt.accepted else outcome.job
        return why_stopped(job, run.token, "stopping" if receipt.accepted else "lost")


class Track(Block):
    """``with manager.track("ingestion") as run``: completed at its end; an exception fails it; Ctrl-C cancels it."""

    def __enter__(self) -> Run:
        return drive(self._start())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end_capture()
        run, unsent = self._let_go()
        instead = drive(self._finish(run, unsent, error, "cooperative"))
        if instead is not None:
            raise instead


class AsyncTrack(Block):
    """``async with manager.track("ingestion") as run``: the same in an event loop; a cancel reaches the next await."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(wanted)
        self._was_cancelled: Callable[[], bool] = bool

    async def __aenter__(self) -> Run:
        run = await self._start()
        task = asyncio.current_task()
        assert task is not None, "an async block runs in a task"
        self._was_cancelled = hear_in_task(run, task, asyncio.get_running_loop())
        return run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._run is not None, "a block ends after it has begun"
        self._run.on_stop = None
        self._end_capture()
        run, how = self._run, "cooperative"
        heard: BaseException | None = error
        if run.stops and self._was_cancelled():
            task = asyncio.current_task()
            assert task is not None, "an async block runs in a task"
            if isinstance(error, asyncio.CancelledError):
                task.uncancel()
                heard, how = run.stops[0], "task cancelled"
            elif task.cancelling():
                task.uncancel()
        instead = await _to_its_end(self._end(heard, how))
        if instead is None and heard is not error:
            instead = heard
        if instead is not None:
            raise instead from (error if isinstance(error, Exception) else None)

    async def _end(self, heard: BaseException | None, how: str) -> BaseException | None:
        run, unsent = await asyncio.to_thread(self._let_go)
        return await self._finish(run, unsent, heard, how)


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that must not be cut off half way. A cancel of the task goes on after it: anyio sends one at each await."""
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as raised:
            cancelled = raised
    if cancelled is not None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the end of a block that was cancelled: %s", error)
        raise cancelled
    return task.result()


# --- starting ----------------------------------------------------------------------------------------------------


async def _begin(wanted: Wanted) -> Job:
    """A record under a lease of this process: a new one, an adopted one, or that of the key taken up again."""
    if wanted.job_id is not None and (adopted := await _adopt(wanted, wanted.job_id)) is not None:
        return adopted
    while True:
        job_id = wanted.job_id or new_job_id()
        fields = {**wanted.fields, "worker": process_name()}
        plan = plan_track(fields, new_op(), nonce=new_nonce(), lease=wanted.settings.lease_micros)
        outcome = await _apply(wanted.store, job_id, plan)
        if outcome.accepted and outcome.job is not None:
            return outcome.job
        if outcome.holder is None and outcome.job is None:
            await _wait_for_stop(wanted)
            continue
        if outcome.holder is None:
            raise DuplicateJob(f"Job {job_id} already exists", job=outcome.job)
        job = await _take_up(wanted, outcome.holder)
        if job is not None:
            return job


async def _adopt(wanted: Wanted, job_id: str) -> Job | None:
    """Take a pending job of its caller; None when there is no such record."""
    plan = plan_adopt(new_op(), nonce=new_nonce(), lease=wanted.settings.lease_micros, worker=process_name())
    outcome = await _apply(wanted.store, job_id, plan)
    if outcome.accepted:
        return outcome.job
    if outcome.job is None:
        return None
    raise DuplicateJob(f"Job {job_id} is {outcome.job.status} and driven by its {outcome.job.driver}", job=outcome.job)


async def _take_up(wanted: Wanted, job_id: str) -> Job | None:
    """Reopen the job of a key; wait for a lease that may run out. None when it is gone, and a new one can be made.

    A running job is waited for until its lease runs out. JobIsLeased as soon as it is renewed: its run is alive.
    """
    store, lease = wanted.store, wanted.settings.lease_micros
    position = (await store.feed(None)).position
    first: str | None = None
    while True:
        job = await store.get(job_id)
        if job is None or job.status == "completed":
            return None
        if job.driver != "track":
            raise DuplicateJob(f"key: job {job_id} has it, and is driven by its {job.driver}", job=job)
        text = f"the process of {job.worker} is gone"
        dead = job.record.get("token") if job.worker is not None and is_dead(job.worker) else None
        plan = plan_reopen(
            new_op(),
            nonce=new_nonce(),
            lease=lease,
            worker=process_name(),
            failure=of_record(job, FailureKind.LOST, text),
            dead=dead,
        )
        outcome = await _apply(store, job_id, plan)
        if outcome.accepted and outcome.job is not None:
            return outcome.job
        renewed = job.record.get("lease", "")
        if first is not None and renewed != first and renewed:
            raise JobIsLeased(f"Job {job_id} with this key runs on {job.worker}", job=job)
        first = renewed
        left = (int(renewed) if renewed else await store.now() + lease) - await store.now()
        news = await store.feed(position, timeout=max(0.01, min(left / 1_000_000, wanted.settings.pulse)))
        position = news.position


async def _wait_for_stop(wanted: Wanted) -> None:
    """The old run of a deleted job of this id or key is still stopping: wait for something to happen."""
    position = (await wanted.store.feed(None)).position
    await wanted.store.feed(position, timeout=wanted.settings.pulse)


async def _apply(store: Store, job_id: str, plan: Change) -> Outcome:
    return (await store.apply([Write(job_id, plan)])).outcomes[0]
