"""Following one job: its events without gaps, and its end. Owns the rule that a watcher misses nothing undeclared."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from milepost.core.errors import JobNotFound, WaitTimeout
from milepost.core.events import Event
from milepost.core.job import Job, JobStatus
from milepost.stores.protocol import Store

WAIT_STEP = 5.0
"""Seconds after which a silent feed is left to look at the record itself, in case its server lost what it had."""


def snapshot(job: Job) -> Event:
    """The state of a job as an event of kind ``snapshot``, with its version."""
    data = {"attempt": job.attempt, "worker": job.worker} if job.worker else {}
    return Event(job.job_id, job.version, "snapshot", job.updated_at, job.status, job.progress, job.message, data)


def has_last_word(job: Job) -> bool:
    """Whether nothing can follow: completed, failed, or cancelled with its receipt closed."""
    if job.status is JobStatus.CANCELLED:
        return job.receipt is None or job.receipt.confirmed is not None
    return job.is_terminal


def missed(job_id: str, seen: int, before: int) -> Event:
    """Declare that versions after `seen` and before `before` were not kept: progress or log events."""
    return Event(job_id, before - 1, "skipped", data={"after": seen, "before": before})


async def catch_up(store: Store, job_id: str, seen: int, until: int | None = None) -> list[Event]:
    """The kept events after a version, with what is missing between them declared."""
    told: list[Event] = []
    for event in await store.events(job_id, seen, 10_000):
        if until is not None and event.version >= until:
            break
        if event.version > seen + 1:
            told.append(missed(job_id, seen, event.version))
        told.append(event)
        seen = event.version
    if until is not None and until > seen + 1:
        told.append(missed(job_id, seen, until))
    return told


async def watch(store: Store, job_id: str, after: int | None = None) -> AsyncIterator[Event]:
    """Each event of a job from now on, after a snapshot; or each after version `after`. Ends with the last word.

    Raises JobNotFound when there is no such job. What is no longer kept is declared by events of kind ``skipped``. A
    snapshot comes again when the job has a lower version than the watcher knows: the id was used again, or the store has
    lost what was written last.
    """
    position = (await store.feed(None)).position
    job = await store.get(job_id)
    if job is None:
        raise JobNotFound(job_id)
    if after is None or after > job.version:
        yield snapshot(job)
        seen = job.version
    else:
        seen = after
        for event in await catch_up(store, job_id, after, job.version + 1):
            yield event
            seen = event.version
    while not has_last_word(job):
        news = await store.feed(position, timeout=WAIT_STEP)
        position = news.position
        mine = [event for event in news.events if event.job_id == job_id and event.version > seen]
        for event in mine:
            if event.version > seen + 1:
                for older in await catch_up(store, job_id, seen, event.version):
                    yield older
            yield event
            seen = event.version
            if event.kind == "deleted":
                return
        if mine and not any(event.is_last_word for event in mine):
            continue
        latest = await store.get(job_id)
        if latest is None or latest.created_at != job.created_at:
            yield Event(job_id, seen + 1, "deleted")
            return
        job = latest
        if job.version < seen:
            yield snapshot(job)
            seen = job.version
        # An end that came since the feed was read is told now, for nothing is read after it. A silent feed may have lost
        # what it had.
        if (news.lost or not news.events or has_last_word(job)) and job.version > seen:
            for event in await catch_up(store, job_id, seen, job.version + 1):
                yield event
            seen = job.version


async def wait(store: Store, job_id: str, timeout: float | None = None) -> Job:
    """The job when it has ended. Raises JobNotFound, also when it is deleted meanwhile, and WaitTimeout."""
    deadline = None if timeout is None else time.monotonic() + timeout
    position = (await store.feed(None)).position
    first: Job | None = None
    while True:
        job = await store.get(job_id)
        if job is None or (first is not None and job.created_at != first.created_at):  # its id may be used again
            raise JobNotFound(job_id)
        first = job
        if job.is_terminal:
            return job
        heard = False
        while not heard:
            left = WAIT_STEP if deadline is None else min(WAIT_STEP, deadline - time.monotonic())
            if left <= 0:
                raise WaitTimeout(f"Job {job_id} is {job.status} after {timeout} s")
            news = await store.feed(position, timeout=left)
            position = news.position
            heard = news.lost or not news.events or any(event.job_id == job_id for event in news.events)
