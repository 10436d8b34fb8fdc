"""Watch a job, event by event without undeclared gaps, and wait for its end."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from milepost.core.errors import JobNotFoundError, WaitTimeoutError
from milepost.core.events import Event, StreamPosition
from milepost.core.job import Job, JobStatus
from milepost.stores.changes import wait_for_change
from milepost.stores.protocol import Store
from milepost.stores.query import existing_job

WAIT_STEP = 5.0
"""Seconds after which a silent feed is not trusted and the record is read, in case the server lost data."""

Sweep = Callable[[], Awaitable[None]]
"""Recovers the jobs of dead processes if it is time: the job may be one, and no other process may be left that does."""


def snapshot(job: Job) -> Event:
    """Return the state of a job as an event of kind ``snapshot``, with its version."""
    data = {"attempt": job.attempt, "worker": job.worker} if job.worker else {}
    return Event(job.job_id, job.version, "snapshot", job.updated_at, job.status, job.progress, job.message, data)


def is_final(job: Job) -> bool:
    """Return whether no event can follow: the job is completed, failed, or cancelled with its receipt closed."""
    if job.status is JobStatus.CANCELLED:
        return job.receipt is None or job.receipt.confirmed is not None
    return job.is_terminal


def skipped_event(job_id: str, seen: int, before: int) -> Event:
    """Return an event that declares the versions between `seen` and `before` as no longer stored."""
    return Event(job_id, before - 1, "skipped", data={"after": seen, "before": before})


def is_same(latest: Job | None, job: Job) -> bool:
    """Return whether a record read later belongs to the same job, and not to another one with the same id."""
    return latest is not None and latest.created_at == job.created_at


async def catch_up(store: Store, job: Job, seen: int, until: int) -> list[Event]:
    """Return the stored events between two versions, with gaps declared.

    Return only a `deleted` event if the job is gone: its events are gone too, and those that were read may belong to
    another job with the same id.
    """
    if until <= seen + 1:
        return []
    events: list[Event] = []
    last = seen
    for event in await store.events(job.job_id, seen, 10_000):
        if event.version >= until:
            break
        if event.version > last + 1:
            events.append(skipped_event(job.job_id, last, event.version))
        events.append(event)
        last = event.version
    if until > last + 1:
        events.append(skipped_event(job.job_id, last, until))
    if not is_same(await store.get(job.job_id), job):
        return [Event(job.job_id, seen + 1, "deleted")]
    return events


async def watch(store: Store, job_id: str, after: StreamPosition | None, sweep: Sweep) -> AsyncIterator[Event]:
    """Yield each event of a job from now on, after a snapshot; or each event after a position. End with the last event.

    Events that are no longer stored are declared by one of kind ``skipped``. If the position belongs to an earlier job
    with the same id, the first event is a snapshot. Another snapshot follows if the version goes back: the store has
    lost its latest writes. Raises JobNotFoundError.
    """
    job = await store.get(job_id)
    while True:
        feed = (await store.feed(None)).position
        before, job = job, await existing_job(store, job_id)
        if before is not None and is_same(before, job):
            break  # the feed only has ids; from here on it has no event of an earlier job
    async with aclosing(_watch(store, job, feed, None if after is None else after.seen_of(job), sweep)) as events:
        async for event in events:
            yield replace(event, position=str(StreamPosition.of(job, event.version)))


async def _watch(store: Store, job: Job, position: str, after: int | None, sweep: Sweep) -> AsyncGenerator[Event]:
    job_id = job.job_id
    if after is None:
        yield snapshot(job)
        seen = job.version
    else:
        seen = after
        for event in await catch_up(store, job, after, job.version + 1):
            yield event
            seen = event.version
            if event.kind == "deleted":
                return
    while not is_final(job):
        await sweep()
        news = await store.feed(position, timeout=WAIT_STEP)
        position = news.position
        mine = [event for event in news.events if event.job_id == job_id and event.version > seen]
        for event in () if news.lost else mine:
            for one in (*await catch_up(store, job, seen, event.version), event):
                yield one
                seen = one.version
                if one.kind == "deleted":
                    return
        if mine and not news.lost and not any(event.is_last_word for event in mine):
            continue
        latest = await store.get(job_id)
        if latest is None or not is_same(latest, job):
            yield Event(job_id, seen + 1, "deleted")
            return
        job = latest
        if job.version < seen:
            yield snapshot(job)
            seen = job.version
        # An end after the last read of the feed is reported now, since nothing is read later. A silent feed may have
        # lost events.
        if news.lost or not news.events or is_final(job):
            for event in await catch_up(store, job, seen, job.version + 1):
                yield event
                seen = event.version
                if event.kind == "deleted":
                    return


async def wait(store: Store, job_id: str, timeout: float | None, sweep: Sweep) -> Job:
    """Return the job when it has ended. Raises JobNotFoundError, also if it is deleted, and WaitTimeoutError."""
    async with aclosing(records(store, job_id, timeout, sweep)) as jobs:
        async for job in jobs:
            if job.is_terminal:
                return job
    raise AssertionError("records() ends by an error only")


async def records(store: Store, job_id: str, timeout: float | None, sweep: Sweep) -> AsyncGenerator[Job]:
    """Yield the job, and again whenever it may have changed; without end.

    Raises JobNotFoundError, also if it is deleted meanwhile, and WaitTimeoutError after `timeout` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    position = (await store.feed(None)).position
    first: Job | None = None
    while True:
        job = await store.get(job_id)
        if job is None or (first is not None and not is_same(job, first)):
            raise JobNotFoundError(job_id)
        first = job
        yield job
        left = WAIT_STEP if deadline is None else min(WAIT_STEP, deadline - time.monotonic())
        if left <= 0:
            raise WaitTimeoutError(f"Job {job_id} is {job.status} after {timeout} s")
        await sweep()
        position = await wait_for_change(store, job_id, position, left)
