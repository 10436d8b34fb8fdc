"""AsyncJobManager: what callers do with jobs, written once. Owns the calls, their defaults and their errors; the moves
are the lifecycle's, the atomicity the store's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any

from milepost.core.defaults import LIST_LIMIT, LIST_LIMIT_MAX
from milepost.core.encoding import RESULT_BYTES, job_id_text, job_type_text, micros, one_line, seconds, to_json
from milepost.core.errors import DuplicateJob, IllegalTransition, InvalidInput, JobIsLeased, JobNotFound, Refused
from milepost.core.events import Event
from milepost.core.job import Job, JobStatus
from milepost.core.lifecycle import plan_cancel, plan_create, plan_delete, plan_retry, plan_update
from milepost.manager import watching
from milepost.manager.requests import Duration, job_fields, status_value, submit_fields, update_values
from milepost.settings import Settings, settings
from milepost.stores.ids import new_job_id, new_op
from milepost.stores.opening import open_store
from milepost.stores.protocol import Outcome, Select, Store, Write
from milepost.stores.query import Page, Query, find, position
from milepost.tracking.block import AsyncTrack, Wanted
from milepost.tracking.pulse import is_beating
from milepost.tracking.sweeper import Sweeper


class AsyncJobManager:
    """Jobs in one store, for code that runs in an event loop. `JobManager` is the same for code that does not.

    `store` is a URL or an open store of the asynchronous kind; `ttl` is how many seconds an ended job is kept
    (default: JOB_TTL). Raises InvalidInput for a URL that is none and for a store of the wrong kind.
    """

    _blocking = False

    def __init__(
        self, store: Store | str | None = None, *, ttl: float | None = None, options: Settings | None = None
    ) -> None:
        self.settings = options if options is not None else settings.current()
        if store is None:
            store = self.settings.url or self.settings.redis_url or "memory://"
        if isinstance(store, str):
            store = open_store(store, namespace=self.settings.namespace, blocking=self._blocking)
        if store.blocking is not self._blocking:
            right = "AsyncJobManager" if self._blocking else "JobManager"
            raise InvalidInput("store", f"a {'blocking' if store.blocking else 'asynchronous'} store needs {right}")
        self.store = store
        self.ttl = self.settings.job_ttl if ttl is None else seconds(ttl, "ttl")
        self.sweeper = Sweeper(store, self.settings, self.ttl)

    # --- the original's five ---

    async def create_job(
        self,
        job_id: str | None = None,
        job_type: str = "generic",
        metadata: Mapping[str, Any] | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        unique_key: str | None = None,
        stale_after: Duration | None = None,
        on_stale: str | None = None,
        parent_id: str | None = None,
        trace: str | None = None,
    ) -> Job:
        """Create a pending job that its caller drives with `update_job`.

        `stale_after`: after how long without an update it is flagged stalled (default 10 min), or failed with
        ``on_stale="fail"``. Raises DuplicateJob for a taken id or unique key, InvalidInput.
        """
        if on_stale not in (None, "flag", "fail"):
            raise InvalidInput("on_stale", f"{on_stale!r:.40} must be 'flag' or 'fail'")
        fields = job_fields(
            "caller",
            job_type,
            metadata=metadata,
            labels=labels,
            unique_key=unique_key,
            parent_id=parent_id,
            trace=trace,
            stale_after=None if stale_after is None else str(int(seconds(stale_after, "stale_after") * 1_000_000)),
            on_stale="fail" if on_stale == "fail" else None,
        )
        return await self._create(job_id, fields)

    async def _create(self, job_id: str | None, fields: dict[str, str], again: int | None = None) -> Job:
        """Write a new record; `again` as in `plan_create`. Raises DuplicateJob with the job that has the id or the key."""
        job_id = new_job_id() if job_id is None else job_id_text(job_id)
        outcome = await self._apply(Write(job_id, plan_create(fields, new_op(), again)))
        if outcome.accepted:
            return _found(outcome.job, job_id)
        if outcome.holder is not None:
            holder = await self.store.get(outcome.holder)
            raise DuplicateJob(f"unique_key: taken by job {outcome.holder}", job=holder)
        if outcome.job is None:
            raise DuplicateJob(f"Job {job_id} was created by this request and deleted since")
        raise DuplicateJob(f"Job {job_id} already exists", job=outcome.job)

    async def get_job(self, job_id: str) -> Job | None:
        """The job of an id, or None."""
        return await self.store.get(job_id) if _is_id(job_id) else None

    async def update_job(
        self,
        job_id: str,
        status: JobStatus | str | None = None,
        progress: float | None = None,
        message: str | None = None,
        error: str | None = None,
        result: Any = None,
    ) -> None:
        """Write the status and progress of a job that its caller drives, in one atomic step.

        `progress` is clamped to [0, 1] and never goes back within an attempt; `message` and `error` are cut to 1 KiB and 8 KiB.
        A job that a run drives accepts only ``status=CANCELLED``. Raises JobNotFound, IllegalTransition, JobIsLeased
        (all ValueErrors with the record as `.job`), InvalidInput.
        """
        target = status_value(status)
        values = update_values(progress, message, error, result)
        if target is JobStatus.CANCELLED:
            plan = plan_cancel(new_op(), by="caller", **values)
        else:
            plan = plan_update(new_op(), target, **values)
        outcome = await self._apply(Write(_known_id(job_id), plan, answer=False))
        if not outcome.accepted:
            raise _refusal(outcome.job, job_id, "cancel" if target is JobStatus.CANCELLED else "update", target)

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
        """The newest `limit` jobs (at most 1,000) that match, newest first, ties by id.

        `find` gives the same with the total and the cursor of the next page.
        """
        query = make_query(job_type, status, labels, stalled, created_after, created_before)
        return (await self._page(query, limit, cursor, counted=False)).jobs

    async def delete_job(self, job_id: str) -> None:
        """Delete a job with all that belongs to it; a running one is cancelled in the same step. Silent when it is gone."""
        if _is_id(job_id):
            await self._apply(Write(job_id, plan_delete(new_op()), answer=False))

    # --- beyond it ---

    async def find(self, query: Query | None = None, limit: int = LIST_LIMIT, cursor: str | None = None) -> Page:
        """One page of the jobs that match a query, with its total. Filters apply before the limit."""
        return await self._page(query if query is not None else Query(), limit, cursor, counted=True)

    async def _page(self, query: Query, limit: int, cursor: str | None, *, counted: bool) -> Page:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InvalidInput("limit", f"{limit!r:.40} must be a whole number from 1 to {LIST_LIMIT_MAX}")
        if not is_beating(self.store):
            await self.sweeper.look()
        return await find(self.store, query, min(limit, LIST_LIMIT_MAX), cursor, counted=counted)

    async def count_jobs(
        self,
        job_type: str | None = None,
        status: JobStatus | str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        stalled: bool = False,
    ) -> int:
        """How many jobs match, exactly, whatever their number."""
        query = make_query(job_type, status, labels, stalled)
        total = await self.store.count(query.select)
        if total is not None:
            return total
        total, after = 0, None
        while batch := await self.store.select(query.select, LIST_LIMIT_MAX, after):
            total, after = total + len(batch), position(batch[-1])
        return total

    async def cancel_job(self, job_id: str, reason: str | None = None, *, by: str | None = None) -> Job:
        """Cancel a job: final when this returns; running code is told at once, and `.receipt` says how it stopped.

        Raises JobNotFound, and IllegalTransition when the job has ended.
        """
        why = None if reason is None else one_line(reason)
        who = None if by is None else one_line(by)
        plan = plan_cancel(new_op(), by=who, why=why, message="Job cancelled by user")
        outcome = await self._apply(Write(_known_id(job_id), plan))
        if not outcome.accepted:
            raise _refusal(outcome.job, job_id, "cancel", None)
        return _found(outcome.job, job_id)

    async def retry_job(self, job_id: str, *, only_failed: bool = False) -> Job:
        """Send a failed or cancelled job back to pending with one fresh budget; it gets its last checkpoint.

        `only_failed` submits a new job, with `retry_of`, that is handed only the items that failed; after completed
        too. Raises JobNotFound, IllegalTransition.
        """
        if only_failed:
            return await self._retry_failed_items(job_id)
        outcome = await self._apply(Write(_known_id(job_id), plan_retry(new_op())))
        if not outcome.accepted:
            raise _refusal(outcome.job, job_id, "retry", None)
        return _found(outcome.job, job_id)

    async def _retry_failed_items(self, job_id: str) -> Job:
        job = _found(await self.get_job(job_id), job_id)
        counts = job.item_counts
        if job.driver != "worker" or not job.is_terminal or counts is None or not counts.failed_keys:
            why = "it has none on record" if job.is_terminal else f"it is {job.status}"
            if job.driver != "worker":
                why = "an engine runs it" if job.driver == "engine" else "no worker knows its code"
            raise IllegalTransition(f"Cannot retry the failed items of job {job_id}: {why}", job=job)
        raw = job.record
        kept = ("params", "secrets", "labels", "metadata", "priority", "timeout", "on_lost", "max_attempts")
        fields = submit_fields(job.job_type, params=None, retry_of=job_id)
        fields.update((name, raw[name]) for name in kept if name in raw)
        fields.update(
            budget=fields["max_attempts"], only_keys=to_json(list(counts.failed_keys), "item_counts", RESULT_BYTES)
        )
        return await self._create(None, fields)

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """The kept events of a job with a version above `after`, oldest first. Raises JobNotFound."""
        events = await self.store.events(_known_id(job_id), after, limit)
        if not events and await self.store.get(job_id) is None:
            raise JobNotFound(job_id)
        return events

    def watch(self, job_id: str, after: int | None = None) -> AsyncIterator[Event]:
        """Each event of a job as it happens, until its last word: a snapshot first, or all after version `after`.

        Raises JobNotFound. What is no longer kept is declared by events of kind ``skipped``.
        """
        return watching.watch(self.store, _known_id(job_id), after)

    async def wait(self, job_id: str, timeout: Duration | None = None) -> Job:
        """The job when it has ended. Raises WaitTimeout after `timeout`, JobNotFound when there is none (any more)."""
        limit = None if timeout is None else seconds(timeout, "timeout")
        return await watching.wait(self.store, _known_id(job_id), limit)

    async def enqueue(self, job_type: str, params: Mapping[str, Any] | None = None, *, job_id: str | None = None, **options: Any) -> Job:  # fmt: skip
        """Record a job for the workers, unchecked against its type's schema; `Jobs.submit` checks. See `submit_fields`."""
        return await self._create(job_id, submit_fields(job_type, params=params, **options))

    def track(
        self,
        job_type: str = "generic",
        *,
        key: str | None = None,
        job_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        parent_id: str | None = None,
        plan: Mapping[str, float] | None = None,
    ) -> AsyncTrack:
        """Track a block of code as a job: ``async with manager.track("ingestion") as run``.

        With the same `key` a failed, cancelled or lost job is taken up again, with its checkpoint; `job_id` adopts a
        pending job of `create_job`, or names the new one. `plan` names the stages with their weights beforehand.
        Raises JobIsLeased when a living run has the key, DuplicateJob, InvalidInput.
        """
        return AsyncTrack(self._wanted(job_type, key, job_id, metadata, labels, parent_id, plan))

    def _wanted(
        self,
        job_type: str,
        key: str | None,
        job_id: str | None,
        metadata: Mapping[str, Any] | None,
        labels: Mapping[str, str] | None,
        parent_id: str | None,
        plan: Mapping[str, float] | None,
    ) -> Wanted:
        fields = job_fields(
            "track", job_type, metadata=metadata, labels=labels, unique_key=key, parent_id=parent_id, attempt="1"
        )
        named = job_id_text(job_id) if job_id is not None else None
        return Wanted(self.store, self.settings, fields, named, dict(plan or {}), self.ttl)

    async def close(self) -> None:
        """Give back the connections; the manager can be used again."""
        await self.store.close()

    async def _apply(self, write: Write) -> Outcome:
        return (await self.store.apply([write])).outcomes[0]


def make_query(
    job_type: str | None = None,
    status: JobStatus | str | None = None,
    labels: Mapping[str, str] | None = None,
    stalled: bool = False,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> Query:
    """The query of plain filters; empty ones are none. Raises InvalidInput."""
    wanted = status_value(status or None)
    return Query(
        Select(
            (job_type_text(job_type),) if job_type else (),
            (wanted.value,) if wanted is not None else (),
            tuple((str(key), str(value)) for key, value in (labels or {}).items()),
            stalled,
            None if created_after is None else micros(created_after, "created_after"),
            None if created_before is None else micros(created_before, "created_before"),
        )
    )


def _is_id(job_id: object) -> bool:
    try:
        job_id_text(job_id)
    except InvalidInput:
        return False
    return True


def _known_id(job_id: str) -> str:
    """An id that can exist; JobNotFound for one that cannot."""
    if not _is_id(job_id):
        raise JobNotFound(one_line(job_id, 200))
    return job_id


def _found(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise JobNotFound(job_id)
    return job


def _refusal(job: Job | None, job_id: str, verb: str, target: JobStatus | None) -> Refused:
    """Why a change was refused, from the record as it is."""
    if job is None:
        return JobNotFound(job_id)
    if verb == "update" and job.driver != "caller" and not job.is_terminal:
        who = f"worker {job.worker}" if job.worker else "a worker" if job.driver != "track" else "its track() block"
        return JobIsLeased(f"Job {job_id} is driven by {who}; a caller may only cancel it", job=job)
    if verb == "retry" and job.status in (JobStatus.FAILED, JobStatus.CANCELLED) and job.driver in ("worker", "engine"):
        return DuplicateJob(f"Cannot retry job {job_id}: a newer job has its unique key", job=job)
    if verb == "retry" and job.driver in ("caller", "track") and job.is_terminal:
        remedy = "create a new job" if job.driver == "caller" else "start it again with its key"
        return IllegalTransition(f"Cannot retry job {job_id}: no worker knows its code; {remedy}", job=job)
    to = f" to {target}" if target is not None and not job.is_terminal else ""
    return IllegalTransition(f"Cannot {verb} job with status {job.status}{to}", job=job)
