"""`track`: a block of code as a job under a lease, blocking and async."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from milepost.core.errors import (
    DuplicateJobError,
    InvalidInputError,
    LeaseHeldError,
    RunStop,
    StoreError,
)
from milepost.core.job import FailureKind, Job
from milepost.core.transitions import plan_adopt, plan_resume, plan_track
from milepost.core.transitions.operations import Change
from milepost.run.capture import capture
from milepost.run.checkpoints import StoreCheckpointWriter
from milepost.run.crash_report import load_redact_hook, report_lost_run
from milepost.run.heartbeat import Heartbeat
from milepost.run.heartbeat_state import OnOutage, PendingReport, ReacquireLease, stop_reason
from milepost.run.job_result import NO_RESULT, JobResult, job_result
from milepost.run.outcome import RunOutcome, outcome_of
from milepost.run.process_identity import is_known_dead, process_name
from milepost.run.run import Run, cancel_task_on_stop, log
from milepost.run.runtime import Runtime
from milepost.run.threads import wait_for_threads
from milepost.stores.ids import new_job_id, new_nonce, new_operation_id
from milepost.stores.protocol import Store, Write, WriteResult
from milepost.stores.sync_bridge import run_sync

RUNNERS = {"manual": "its caller", "track": "a track() block", "worker": "a worker", "external": "a task queue"}
"""What runs a job, by its `run_by`, in texts."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TrackRequest:
    """The arguments of `track`: the fields of a new record, and the id that it gets or adopts."""

    runtime: Runtime
    fields: dict[str, str]
    job_id: str | None
    plan: dict[str, float]


class LeasedExecution:
    """Code that runs under a lease in this process: how its run starts and ends."""

    on_outage: OnOutage = "continue"
    waits_for_store = False
    """Whether a checkpoint waits during an outage of the store instead of raising."""
    reacquire: ReacquireLease | None = None

    def __init__(self, request: TrackRequest) -> None:
        self._request = request
        self._run: Run | None = None
        self._heartbeat: Heartbeat | None = None
        self._captured: capture.CaptureHandle | None = None
        self._pid = 0
        """The process that runs the code; `_start` sets it."""
        self._sent_at = 0.0
        """When the lease was requested, on the monotonic clock; `_begin` may correct it."""

    async def _start(self) -> Run:
        request = self._request
        if self._run is not None:
            raise InvalidInputError("track", "this block was entered before; call track() again for each run")
        load_redact_hook(request.runtime.settings.redact)  # rejected before a job is created
        self._sent_at = time.monotonic()
        job = await self._begin()
        if self._heartbeat is None:
            self._heartbeat = request.runtime.heartbeat
        self._pid = os.getpid()
        checkpoint_writer = StoreCheckpointWriter(
            request.runtime.store, self._heartbeat, until_stopped=self.waits_for_store, reacquire=self.reacquire
        )
        self._run = self._make_run(job, checkpoint_writer)
        sent_at = self._sent_at if self.on_outage == "stop" else None
        self._heartbeat.add(self._run, self.on_outage, sent_at, self.reacquire)
        self._captured = capture.begin(self._run, request.runtime.settings.captures, request.runtime.settings.redact)
        return self._run

    async def _begin(self) -> Job:
        """Take a lease and return the record."""
        return await _begin(self._request)

    def _make_run(self, job: Job, checkpoint_writer: StoreCheckpointWriter) -> Run:
        return Run(job, job.record["token"], checkpoint_writer, plan=self._request.plan)

    @property
    def _is_forked(self) -> bool:
        """Return whether this is a copy in a forked process. The run belongs to the parent, which ends it."""
        return os.getpid() != self._pid

    def _end_capture(self) -> None:
        """End the capture. Call it where the code ran, before `_detach`."""
        assert self._run is not None, "the block was entered"
        assert self._captured is not None, "the block was entered"
        capture.end(self._run, self._captured)

    def _result(self, error: BaseException | None) -> JobResult:
        """Return what the block has set as `run.result`. Call it before `_detach`."""
        assert self._run is not None, "the block was entered"
        return NO_RESULT if error is not None else job_result(self._run.result, self._run)

    def _detach(self) -> tuple[Run, PendingReport]:
        assert self._run is not None, "the block was entered"
        assert self._heartbeat is not None, "the block was entered"
        return self._run, self._heartbeat.remove(self._run)

    async def _finish(
        self, run: Run, pending: PendingReport, error: BaseException | None, how: str, result: JobResult
    ) -> BaseException | None:
        """Write the outcome of the run; return the exception to raise instead of the block's own, or None."""
        end = outcome_of(run, pending, error, result=result, how=how)
        try:
            refused = await self._write(run, end)
        except StoreError as failure:
            if error is None:
                raise
            log.error("job %s: outcome not written: %s", run.job_id, failure)
            return None
        return refused if error is None else None

    async def _write(self, run: Run, end: RunOutcome) -> RunStop | None:
        """Write the outcome, or the receipt if the job has ended already; return why the run should have stopped."""
        if not end.writes:
            return None
        store = self._request.runtime.store
        outcome = (await store.apply(end.writes)).outcomes[-1]
        if outcome.accepted or end.late is None:
            return None
        receipt = (await store.apply([Write(run.job_id, end.late.plan())])).outcomes[0]
        job = receipt.job if receipt.accepted else outcome.job
        return stop_reason(job, run.token, "stopping" if receipt.accepted else "lost")


class Track(LeasedExecution):
    """A tracked block: its end completes the job, an exception fails it, Ctrl-C cancels it.

    Use it as ``with manager.track("ingestion") as run``.
    """

    def __enter__(self) -> Run:
        return run_sync(self._start())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._is_forked:
            return
        self._end_capture()
        result = self._result(error)
        run, pending = self._detach()
        instead = run_sync(self._finish(run, pending, error, "cooperative", result))
        if instead is not None:
            raise instead


class AsyncTrack(LeasedExecution):
    """A tracked block in an event loop, where a cancel stops it at the next await.

    Use it as ``async with manager.track("ingestion") as run``.
    """

    def __init__(self, request: TrackRequest) -> None:
        super().__init__(request)
        self._was_cancelled: Callable[[], bool] = bool

    async def __aenter__(self) -> Run:
        run = await self._start()
        task = asyncio.current_task()
        assert task is not None, "an async block runs in a task"
        self._was_cancelled = cancel_task_on_stop(run, task, asyncio.get_running_loop())
        return run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._run is not None, "the block was entered"
        if self._is_forked:
            return
        self._run._on_stop = None
        self._end_capture()
        run, how = self._run, "cooperative"
        cause: BaseException | None = error
        if run._stop_reasons and self._was_cancelled():
            task = asyncio.current_task()
            assert task is not None, "an async block runs in a task"
            if isinstance(error, asyncio.CancelledError):
                task.uncancel()
                cause, how = run._stop_reasons[0], "task_cancelled"
            elif task.cancelling():
                task.uncancel()
        instead = await _run_shielded(self._end(cause, how))
        if instead is None and cause is not error:
            instead = cause
        if instead is not None:
            raise instead from (error if isinstance(error, Exception) else None)

    async def _end(self, cause: BaseException | None, how: str) -> BaseException | None:
        assert self._run is not None, "the block was entered"
        await wait_for_threads(self._run)
        result = self._result(cause)
        run, pending = await asyncio.to_thread(self._detach)
        return await self._finish(run, pending, cause, how, result)


async def _run_shielded(work: Coroutine[Any, Any, T]) -> T:
    """Await work that must not be interrupted; raise a cancellation of the task afterwards.

    anyio cancels at each await.
    """
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as raised:
            cancelled = raised
    if cancelled is not None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("failed to record the end of a cancelled track() block: %s", error)
        raise cancelled
    return task.result()


# --- starting ----------------------------------------------------------------------------------------------------


async def _begin(request: TrackRequest) -> Job:
    """Take a lease on a new record, on the job to adopt, or on the failed job of the same key; return the record."""
    if request.job_id is not None and (adopted := await _adopt(request, request.job_id)) is not None:
        return adopted
    while True:
        job_id = request.job_id or new_job_id()
        fields = {**request.fields, "worker": process_name()}
        if request.runtime.settings.release is not None:
            fields["release"] = request.runtime.settings.release
        plan = plan_track(fields, new_operation_id(), nonce=new_nonce(), lease=request.runtime.settings.lease_micros)
        outcome = await _apply(request.runtime.store, job_id, plan)
        if outcome.accepted and outcome.job is not None:
            return outcome.job
        if outcome.key_owner_id is None and outcome.job is None:
            await _wait_for_stop(request)
            continue
        if outcome.key_owner_id is None:
            raise DuplicateJobError(f"Job {job_id} already exists", job=outcome.job)
        job = await _reopen(request, outcome.key_owner_id)
        if job is not None:
            return job


async def _adopt(request: TrackRequest, job_id: str) -> Job | None:
    """Take a lease on a pending job of its caller; return None if there is no such job."""
    settings = request.runtime.settings
    plan = plan_adopt(
        new_operation_id(),
        nonce=new_nonce(),
        lease=settings.lease_micros,
        worker=process_name(),
        release=settings.release,
    )
    outcome = await _apply(request.runtime.store, job_id, plan)
    if outcome.accepted:
        return outcome.job
    if outcome.job is None:
        return None
    raise DuplicateJobError(
        f"Job {job_id} is {outcome.job.status} and is run by {RUNNERS[outcome.job.run_by]}", job=outcome.job
    )


async def _reopen(request: TrackRequest, job_id: str) -> Job | None:
    """Take a lease on the job of a key, if it has ended or its lease expires; return None if a new job can be created.

    Raises LeaseHeldError as soon as the lease of a running job is renewed: its run is alive.
    """
    store, lease = request.runtime.store, request.runtime.settings.lease_micros
    position = (await store.feed(None)).position
    first: str | None = None
    while True:
        job = await store.get(job_id)
        if job is None or job.status == "completed":
            return None
        if job.run_by != "track":
            raise DuplicateJobError(
                f"unique_key: taken by job {job_id}, which is run by {RUNNERS[job.run_by]}", job=job
            )
        text = f"process of {job.worker} is gone"
        dead = job.record.get("token") if job.worker is not None and is_known_dead(job.worker) else None
        plan = plan_resume(
            new_operation_id(),
            nonce=new_nonce(),
            lease=lease,
            worker=process_name(),
            failure=report_lost_run(job, FailureKind.LOST, text),
            dead=dead,
            release=request.runtime.settings.release,
        )
        outcome = await _apply(store, job_id, plan)
        if outcome.accepted and outcome.job is not None:
            return outcome.job
        renewed = job.record.get("lease", "")
        if first is not None and renewed != first and renewed:
            raise LeaseHeldError(f"unique_key: job {job_id} with this key is still running on {job.worker}", job=job)
        first = renewed
        left = (int(renewed) if renewed else await store.now() + lease) - await store.now()
        news = await store.feed(position, timeout=max(0.01, min(left / 1_000_000, request.runtime.settings.heartbeat)))
        position = news.position


async def _wait_for_stop(request: TrackRequest) -> None:
    """Wait for an event while the code of a deleted job of this id or key is still stopping."""
    position = (await request.runtime.store.feed(None)).position
    await request.runtime.store.feed(position, timeout=request.runtime.settings.heartbeat)


async def _apply(store: Store, job_id: str, plan: Change) -> WriteResult:
    return (await store.apply([Write(job_id, plan)])).outcomes[0]
