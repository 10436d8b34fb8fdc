"""AsyncJobManager: create, read, update, cancel and watch jobs from code in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Unpack

from milepost.core.defaults import LIST_LIMIT, LIST_LIMIT_MAX
from milepost.core.errors import (
    IllegalTransitionError,
    InvalidInputError,
    JobNotFoundError,
)
from milepost.core.events import Event, StreamPosition
from milepost.core.job import Job, JobStatus
from milepost.core.placement import AFTER, is_batch
from milepost.core.record import FIELDS
from milepost.core.result_types import R
from milepost.core.serialization import (
    RESULT_BYTES,
    US,
    Duration,
    known_id,
    may_be_id,
    seconds,
    single_line,
    to_json,
    validate_job_id,
    validate_new_id,
)
from milepost.core.transitions import plan_cancel, plan_retry, plan_update
from milepost.core.transitions.change import Change
from milepost.manager import descendants, watch
from milepost.manager.answers_and_pauses import AnswerAndPauseMethods
from milepost.manager.options import CreateOptions
from milepost.manager.output import OutputMethods
from milepost.manager.retry_check import RetryCheckMethods
from milepost.manager.schedules import ScheduleMethods
from milepost.manager.usage import UsageMethods
from milepost.manager.validation import (
    creation_error,
    history_filter,
    id_of,
    job_fields,
    make_query,
    page_size,
    plan_new,
    query_of,
    rejection_error,
    result_of,
    status_value,
    submit_fields,
    update_values,
)
from milepost.run.runtime import Runtime
from milepost.run.stage_plan import weights_of_mapping
from milepost.run.track import AsyncTrack, TrackRequest
from milepost.settings import Settings, settings
from milepost.stores.cycles import refuse_cycle
from milepost.stores.factory import open_store
from milepost.stores.protocol import Store, Write
from milepost.stores.query import Page, Query, existing_job, find, position
from milepost.stores.refused_groups import closed_batch, refuse_foreign_batches

if TYPE_CHECKING:
    from milepost.query.filters import Filter
    from milepost.query.statistics import History


class AsyncJobManager(ScheduleMethods, AnswerAndPauseMethods, OutputMethods, UsageMethods, RetryCheckMethods):
    """Manages the jobs of one store from code in an event loop. `JobManager` is the same for blocking code.

    `store` is a URL or an open async store. `ttl` is how many seconds an ended job is kept (default: JOB_TTL). Raises
    InvalidInputError for an invalid URL or a blocking store.
    """

    def __init__(
        self, store: Store | str | None = None, *, ttl: float | None = None, options: Settings | None = None
    ) -> None:
        self._use(open_runtime(store, ttl, options, blocking=False))

    def _use(self, runtime: Runtime, origin: str | None = None) -> None:
        self.runtime = runtime
        self.store = runtime.store
        self.settings = runtime.settings
        self.ttl = runtime.ttl
        self.origin = origin
        """The origin of new records: ``api`` in the server's own manager, and nowhere else."""
        self._new_operation_id = runtime.ids.new_operation_id

    @classmethod
    def of(cls, runtime: Runtime, origin: str | None = None) -> AsyncJobManager:
        """Return a manager with a runtime that exists; over a blocking store its coroutines never suspend."""
        manager = cls.__new__(cls)
        manager._use(runtime, origin)
        return manager

    # --- create, read, update, list, delete ---

    async def create_job(
        self,
        job_id: str | None = None,
        job_type: str = "generic",
        metadata: Mapping[str, Any] | None = None,
        **options: Unpack[CreateOptions],
    ) -> Job:
        """Create a pending job that its caller updates with `update_job`, and return it.

        After `stale_after` without an update (default 10 min) it is flagged as stalled, or failed with
        ``on_stale="fail"``. Raises DuplicateJobError if the id or unique key is taken, and InvalidInputError.
        """
        await refuse_foreign_batches(self.store, options.get("after"))
        stored = {"origin": self.origin}
        fields = job_fields("manual", job_type, stored=stored, metadata=metadata, **options)
        return await self._create(job_id, fields)

    async def _create(self, job_id: str | None, fields: dict[str, str], again: int | None = None) -> Job:
        """Write a new record; `again` as in `plan_create`. Raises DuplicateJobError with the job that is in the way."""
        job_id = self.runtime.ids.new_job_id() if job_id is None else validate_new_id(job_id)
        if AFTER in fields.get("labels", ""):
            await refuse_cycle(self.store, fields)
        write = Write(job_id, plan_new(fields, self._new_operation_id(), again))
        (outcome,) = (await self.store.apply([write])).outcomes
        if outcome.accepted:
            return _found(outcome.job, job_id)
        raise await creation_error(self.store, job_id, fields, outcome)

    async def get_job(self, job_id: str) -> Job | None:
        """Return the job, or None if it does not exist."""
        return await self.store.get(job_id) if may_be_id(job_id) else None

    async def update_job(
        self,
        job_id: str,
        status: JobStatus | str | None = None,
        progress: float | None = None,
        message: str | None = None,
        error: str | None = None,
        result: Any = None,
    ) -> None:
        """Write the status and progress of a manual job, made by `create_job`, in one atomic step.

        `progress` is clamped to [0, 1] and never goes back within an attempt. `message` and `error` are cut to 1 KiB
        and 8 KiB. Every other job accepts only ``status=CANCELLED``. Raises JobNotFoundError,
        IllegalTransitionError, LeaseHeldError (all ValueErrors with the record as `.job`) and InvalidInputError.
        """
        target = status_value(status)
        values = update_values(progress, message, error, result)
        if target is JobStatus.CANCELLED:
            plan = plan_cancel(self._new_operation_id(), by="caller", **values)
            await self._cancel(job_id, plan, "caller", None)
        else:
            plan = plan_update(self._new_operation_id(), target, **values)
            await self._apply(job_id, plan, "update", target, answer=False)

    async def list_jobs(
        self,
        job_type: str | None = None,
        status: JobStatus | str | None = None,
        limit: int = LIST_LIMIT,
        *,
        labels: Mapping[str, str] | None = None,
        stalled: bool = False,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        cursor: str | None = None,
    ) -> list[Job]:
        """Return the newest `limit` jobs (at most 1,000) that match, newest first, ties by id.

        `find` returns the same with the total and the cursor of the next page.
        """
        query = make_query(job_type, status, labels, stalled, created_after, created_before)
        return (await self._page(query, limit, cursor, counted=False)).jobs

    async def delete_job(self, job_id: str) -> None:
        """Delete a job with all its data and its children, if it exists. A running job is cancelled in the same step.

        Raises IllegalTransitionError for a single child of an open parent.
        """
        if may_be_id(job_id):
            await descendants.delete(self.store, job_id, self._new_operation_id)

    # --- find, cancel, retry, watch, track ---

    async def find(self, query: Query | Filter | str | None = None, limit: int = LIST_LIMIT, cursor: str | None = None) -> Page:  # fmt: skip
        """Return one page of the jobs that match a filter, such as ``"status:failed type:load"``, newest first.

        A page has at most `limit` jobs (1 to 1,000), and their total if an index counts it; `cursor` is the `next_cursor` of the page before. `query` may also be
        a parsed filter, or a Query. Raises InvalidInputError and FilterError.
        """
        now = await self.store.now() if isinstance(query, str) else 0
        return await self._page(query_of(query, now), limit, cursor, counted=True)

    async def _page(self, query: Query, limit: int, cursor: str | None, *, counted: bool) -> Page:
        size = page_size(limit)
        await self.runtime.sweep_if_alone()
        return await find(self.store, query, size, cursor, counted=counted)

    async def count_jobs(
        self,
        job_type: str | None = None,
        status: JobStatus | str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        stalled: bool = False,
    ) -> int:
        """Return the exact number of jobs that match."""
        query = make_query(job_type, status, labels, stalled)
        total = await self.store.count(query.select)
        if total is not None:
            return total
        total, after = 0, None
        while batch := await self.store.select(query.select, LIST_LIMIT_MAX, after):
            total, after = total + len(batch), position(batch[-1])
        return total

    async def history(
        self, window: Duration = "24h", step: Duration = "15m", *, job_type: str | None = None, queue: str | None = None
    ) -> History:
        """Return how many jobs ended in the last `window`, by step and by type, with quantiles of run and wait times.

        Raises InvalidInputError. Kept by the store for 60 days (two days by the minute), also for jobs that were deleted since.
        """
        from milepost.query.statistics import read_history  # here, because most programs do without it

        wanted = history_filter(job_type, queue)
        return await read_history(self.store, seconds(window, "window"), seconds(step, "step"), **wanted)

    async def cancel_job(self, job_id: str, reason: str | None = None, *, by: str | None = None) -> Job:
        """Cancel a job and return it. The status is final when this returns; running code is signalled at once.

        `.receipt` tells when and how the code stopped. The cancel of a batch cancels its open jobs, and a repeated one
        those that are still open. Raises JobNotFoundError, and IllegalTransitionError if the job has ended.
        """
        why = None if reason is None else single_line(reason)
        who = None if by is None else single_line(by)
        plan = plan_cancel(self._new_operation_id(), by=who, why=why, message="Job cancelled by user")
        return await self._cancel(job_id, plan, who, why)

    async def _cancel(self, job_id: str, plan: Change, who: str | None, why: str | None) -> Job:
        try:
            job = _found(await self._apply(job_id, plan, "cancel"), job_id)
        except IllegalTransitionError as refused:
            if refused.job is None or not await self._cancel_members(refused.job, who, why):
                raise
            return refused.job
        await self._cancel_members(job, who, why)
        return job

    async def _cancel_members(self, job: Job, who: str | None, why: str | None) -> bool:
        if not is_batch(job) or job.status is not JobStatus.CANCELLED:
            return False
        new_id = self._new_operation_id
        return await descendants.cancel_members_of_batch(self.store, job.job_id, new_id, by=who, why=why)

    async def retry_job(self, job_id: str, *, only_failed: bool = False, from_start: bool = False, dependents: bool = False) -> Job:  # fmt: skip
        """Return a failed or cancelled job to pending with a new retry budget; it continues where it stopped.

        `from_start` discards its checkpoint, state and kept results. `only_failed` submits a new job for the failed items only,
        with `retry_of`; this also works on completed jobs. `dependents` puts back the jobs that were cancelled because of it,
        too. Raises JobNotFoundError and IllegalTransitionError.
        """
        if only_failed and (from_start or dependents):
            raise InvalidInputError("only_failed", "submits a new job; omit from_start and dependents")
        if only_failed:
            return await self._retry_failed_items(job_id)
        plan = plan_retry(self._new_operation_id(), from_start=from_start)
        job = await self._apply(job_id, plan, "retry")
        if dependents and job is not None:
            await descendants.retry_dependents(self.store, job, self._new_operation_id)
        return _found(job, job_id)

    async def _retry_failed_items(self, job_id: str) -> Job:
        job = _found(await self.get_job(known_id(job_id)), job_id)
        counts = job.item_counts
        if job.run_by != "worker" or not job.is_terminal or counts is None or not counts.failed_keys:
            why = "no failed items are recorded" if job.is_terminal else f"it is {job.status}"
            if job.run_by != "worker":
                why = "a task queue runs it" if job.run_by == "external" else "it was not submitted to a worker"
            raise IllegalTransitionError(f"Cannot retry the failed items of job {job_id}: {why}", job=job)
        raw = job.record
        place = {"queue": job.queue, "limit_key": job.limit_key, "partition": job.partition}
        fields = submit_fields(job.job_type, params=None, retry_of=job_id, **place)
        fields.update((one.key, raw[one.key]) for one in FIELDS if one.copied and one.key in raw)
        left_out = [AFTER, ":parent_id="]  # the new job follows no other, and no run has made it
        if await closed_batch(self.store, raw.get("labels", "")) is not None:
            left_out.append(":group=")
        fields["labels"] = US.join(
            one for one in raw.get("labels", "").split(US) if not one.startswith(tuple(left_out))
        )
        fields.update(
            budget=fields["max_attempts"], only_keys=to_json(list(counts.failed_keys), "item_counts", RESULT_BYTES)
        )
        return await self._create(None, fields)

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """Return the stored events of a job with a version above `after`, oldest first. Raises JobNotFoundError."""
        events = await self.store.events(known_id(job_id), after, limit)
        if not events:
            await existing_job(self.store, job_id)
        return events

    def watch(self, job_id: str, after: str | int | None = None) -> AsyncIterator[Event]:
        """Yield each event of a job as it happens, until its last event.

        The first event is a snapshot, unless `after` is given: the `position` of an event, after which the watch
        continues. If that job was deleted and its id used again, the watch starts with a snapshot of the new job. A
        version alone is accepted as well, for whichever job has the id. Events that are no longer stored are reported
        as one event of kind ``skipped``. Raises JobNotFoundError.
        """
        seen = None if after is None else StreamPosition.read(after)
        return watch.watch(self.store, known_id(job_id), seen, self.runtime.sweep_if_alone)

    async def wait(self, job: Job[R] | str, timeout: Duration | None = None) -> Job[R]:
        """Wait until the job, given as a Job or by its id, has ended, and return it.

        Raises WaitTimeoutError after `timeout`, and JobNotFoundError.
        """
        limit = None if timeout is None else seconds(timeout, "timeout")
        return await watch.wait(self.store, known_id(id_of(job)), limit, self.runtime.sweep_if_alone)

    async def result(self, job: Job[R] | str) -> R:
        """Return the result of a completed job, given as a Job or by its id.

        Raises ResultNotSerialisableError, with the text, if the result is not JSON, RejectedError, with the record as
        `.job`, if the job has not completed, and JobNotFoundError.
        """
        job_id = id_of(job)
        result: R = result_of(_found(await self.get_job(known_id(job_id)), job_id))
        return result

    async def enqueue(self, /, job_type: str, params: Mapping[str, Any] | None = None, *, job_id: str | None = None, **options: Any) -> Job:  # fmt: skip
        """Create a job for workers without validation against its type, and return it. `Jobs.submit` validates."""
        return await self._create(job_id, submit_fields(job_type, params=params, **options))

    def track(
        self,
        job_type: str = "generic",
        *,
        unique_key: str | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        parent_id: str | None = None,
        plan: Mapping[str, float] | None = None,
    ) -> AsyncTrack:
        """Track a block of code as a job: ``async with manager.track("ingestion") as run``.

        With the same `unique_key`, a failed, cancelled or lost job is resumed, with its checkpoint. `job_id` adopts a
        pending job of `create_job`, or sets the id of the new job. `plan` names the stages in advance, with their
        weights. Raises LeaseHeldError if a live run has the key, DuplicateJobError and InvalidInputError.
        """
        given = {"metadata": metadata, "labels": labels, "unique_key": unique_key, "parent_id": parent_id}
        fields = job_fields("track", job_type, stored={"attempt": "1"}, message="", **given)
        named = validate_job_id(job_id) if job_id is not None else None
        return AsyncTrack(TrackRequest(self.runtime, fields, named, weights_of_mapping(plan)))

    async def close(self) -> None:
        """Close the connections. The manager can be used again."""
        if self.store.blocking:
            self.runtime.end_heartbeat()
        else:
            await asyncio.to_thread(self.runtime.end_heartbeat)
        await self.store.close()

    async def _apply(
        self, job_id: str, change: Change, verb: str, target: JobStatus | None = None, *, answer: bool = True
    ) -> Job | None:
        """Apply a change, and return the job if there is to be an `answer`. Raises the error of a refused change."""
        (outcome,) = (await self.store.apply([Write(known_id(job_id), change, answer)])).outcomes
        if outcome.branch < 0:
            raise rejection_error(outcome, job_id, verb, target)
        return outcome.job


def open_runtime(store: Store | str | None, ttl: float | None, options: Settings | None, *, blocking: bool) -> Runtime:
    """Return the runtime for the arguments of a manager, with the defaults of the environment.

    Raises InvalidInputError for an invalid URL or retention, or an open store of the other API.
    """
    options = options if options is not None else settings.current()
    if store is None:
        store = options.store_url
    if isinstance(store, str):
        store = open_store(store, namespace=options.namespace, blocking=blocking)
    if store.blocking is not blocking:
        right = "AsyncJobManager" if blocking else "JobManager"
        raise InvalidInputError("store", f"a {'blocking' if store.blocking else 'async'} store needs {right}")
    return Runtime(store, options, options.job_ttl if ttl is None else seconds(ttl, "ttl"))


def _found(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise JobNotFoundError(job_id)
    return job
