"""`track`: a block of code as a job under a lease, blocking and async."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from milepost.core.defaults import RENEWALS_PER_LEASE, RETRY_PAUSE
from milepost.core.errors import (
    DuplicateJobError,
    InvalidInputError,
    LeaseHeldError,
    StoreError,
)
from milepost.core.job import FailureKind, Job
from milepost.core.transitions import plan_adopt, plan_resume, plan_track
from milepost.core.transitions.change import Change
from milepost.run.async_run import AsyncRun
from milepost.run.crash_report import report_lost_run
from milepost.run.execution import LeasedExecution
from milepost.run.heartbeat_state import OnOutage, stop_reason
from milepost.run.process_identity import is_known_dead, process_name
from milepost.run.run import Run, log
from milepost.run.runtime import Runtime
from milepost.stores.changes import wait_for_change
from milepost.stores.ids import new_job_id, new_nonce, new_operation_id
from milepost.stores.protocol import Write, WriteResult
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

    @property
    def owner(self) -> dict[str, str]:
        """Return what a record says of the process that has its lease: this one."""
        release = self.runtime.settings.release
        return {"worker": process_name()} if release is None else {"worker": process_name(), "release": release}


class _TrackedBlock(LeasedExecution):
    """The execution of a block, whose result is what it sets as `run.result`."""

    on_outage: OnOutage = "continue"
    waits_for_store = False

    def __init__(self, request: TrackRequest) -> None:
        settings = request.runtime.settings
        super().__init__(settings.captures, settings.redact)
        self.request = request

    async def _enter(self) -> Run:
        if self.has_started:
            raise InvalidInputError("track", "this block was entered before; call track() again for each run")
        return await self.start(self.request.runtime, self.request.plan)

    async def take_lease(self) -> Job:
        return await _begin(self.request)

    async def _finish(self, cause: BaseException | None) -> BaseException | None:
        """Write the outcome of the run; return the exception to raise instead of the block's own, or None."""
        run, store = self.run, self.request.runtime.store
        if not store.blocking:
            await self.wait_for_threads()
        lost = await self._make_children() if cause is None else None
        cause = cause or lost
        result = self.result(cause, run.result)
        end = self.outcome(await self.detach(), cause, result)
        try:
            reply, receipt = await end.write(store.apply)
        except StoreError as failure:
            if cause is None:
                raise
            log.error("job %s: outcome not written: %s", run.job_id, failure)
            return lost
        if cause is not None or reply is None or receipt is None:
            return lost
        job = receipt.job if receipt.accepted else reply.job
        return stop_reason(job, run.token, "stopping" if receipt.accepted else "lost")

    async def _make_children(self) -> BaseException | None:
        """Make the children that are buffered; return what that raised."""
        children = self.run._children
        try:
            if children is not None:
                await asyncio.to_thread(children.finish) if not self.runtime.store.blocking else children.finish()
        except BaseException as raised:  # noqa: BLE001 - it ends the job as an exception of the block
            return raised
        return None


class Track(_TrackedBlock):
    """A tracked block: its end completes the job, an exception fails it, Ctrl-C cancels it.

    Use it as ``with manager.track("ingestion") as run``.
    """

    def __enter__(self) -> Run:
        run = run_sync(self._enter())
        self.begin_code()
        return run

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.is_forked:
            return
        cause = self.end_code(error)
        instead = run_sync(self._finish(cause))
        if instead is None and cause is not error:
            instead = cause
        if instead is not None:
            raise instead

    def execute(self, code: Callable[[Any], Any], run_type: type[Run] = Run) -> None:
        """Run a function, or a coroutine function in an event loop of its own, as the block; what it returns is the result."""
        self.run_type = run_type
        run = run_sync(self._enter())
        error: BaseException | None
        try:
            if inspect.iscoroutinefunction(code):
                error, run.result = asyncio.run(self.acall(lambda: code(run)))
            else:
                error, run.result = self.call(lambda: code(run))
        except KeyboardInterrupt as interrupt:  # between two steps of the event loop
            error = interrupt
        if not self.is_forked and (error := run_sync(self._finish(error)) or error) is not None:
            raise error


class AsyncTrack(_TrackedBlock):
    """A tracked block in an event loop, where a cancel stops it at the next await.

    Use it as ``async with manager.track("ingestion") as run``.
    """

    run: AsyncRun
    run_type = AsyncRun

    async def __aenter__(self) -> AsyncRun:
        await self._enter()
        self.cancel_on_stop()
        self.begin_code()
        return self.run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self.is_forked:
            return
        cause = self.end_code(error)
        instead = await _run_shielded(self._finish(cause))
        if instead is None and cause is not error:
            instead = cause
        if instead is not None:
            raise instead from (error if isinstance(error, Exception) else None)


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
        outcome, leased = await _take(request, job_id, plan_track, {**request.fields, **request.owner})
        if leased is not None:
            return leased
        if outcome.accepted:
            continue
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
    outcome, leased = await _take(request, job_id, plan_adopt, **request.owner)
    if leased is not None:
        return leased
    if outcome.job is None:
        return None
    raise DuplicateJobError(
        f"Job {job_id} is {outcome.job.status} and is run by {RUNNERS[outcome.job.run_by]}", job=outcome.job
    )


async def _reopen(request: TrackRequest, job_id: str) -> Job | None:
    """Take a lease on the job of a key, if it has ended or its run is lost; return None if a new job can be created.

    Raises LeaseHeldError as soon as the lease of a running job is renewed: its run is alive.
    """
    store, watched = request.runtime.store, _WatchedLease(request.runtime)
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
        is_dead = job.worker is not None and is_known_dead(job.worker)
        lease = job.record.get("lease", "")
        if first is not None and lease not in ("", first) and not is_dead:
            raise LeaseHeldError(f"unique_key: job {job_id} with this key is still running on {job.worker}", job=job)
        first = lease
        wait = request.runtime.settings.heartbeat
        if lease and not is_dead and (left := watched.look((int(lease) - await store.now()) / 1_000_000)) > 0:
            wait = min(left, watched.look_interval, wait)
        else:
            token = job.record.get("token", "")
            outcome, leased = await _take(
                request,
                job_id,
                plan_resume,
                failure=report_lost_run(job, FailureKind.LOST, f"process {job.worker} died"),
                dead=token if is_dead else None,
                version=job.record.get("version", ""),
                token=token,
                **request.owner,
            )
            if leased is not None:
                return leased
            if outcome.accepted:
                continue
        position = await wait_for_change(store, job_id, position, wait, request.runtime.clock.monotonic)


class _WatchedLease:
    """The lease of another process. If it has ended, an outage may have kept that process from renewing it."""

    def __init__(self, runtime: Runtime) -> None:
        self._monotonic = runtime.clock.monotonic
        settings = runtime.settings
        self._patience = settings.lease / RENEWALS_PER_LEASE + settings.heartbeat + RETRY_PAUSE
        """Seconds within which a live process renews it, if the store can be reached."""
        self.look_interval = self._patience / 4
        self._looked_at = self._ended_at = -math.inf

    def look(self, left: float) -> float:
        """Note that it ends in `left` seconds; return the seconds until its run counts as lost."""
        now = self._monotonic()
        # Time counts from the end of the lease, and from the last time without a look, which may have been an outage.
        if left > 0 or now - self._looked_at > self._patience / 2:
            self._ended_at = now + max(0.0, left)
        self._looked_at = now
        return self._ended_at + self._patience - now


async def _wait_for_stop(request: TrackRequest) -> None:
    """Wait for an event while the code of a deleted job of this id or key is still stopping."""
    position = (await request.runtime.store.feed(None)).position
    await request.runtime.store.feed(position, timeout=request.runtime.settings.heartbeat)


async def _take(
    request: TrackRequest, job_id: str, plan: Callable[..., Change], *fields: dict[str, str], **values: str | None
) -> tuple[WriteResult, Job | None]:
    """Take a lease by a plan; return the answer, and the job under the lease.

    The job is None if the plan was refused, or if the lease was lost before the reply to a repeated request.
    """
    nonce, lease = new_nonce(), request.runtime.settings.lease_micros
    change = plan(*fields, new_operation_id(), nonce=nonce, lease=lease, **values)
    outcome = (await request.runtime.store.apply([Write(job_id, change)])).outcomes[0]
    job = outcome.job
    is_mine = outcome.accepted and job is not None and job.record.get("token", "").endswith(f":{nonce}")
    return outcome, job if is_mine else None
