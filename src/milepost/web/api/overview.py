"""Failure groups, statistics, job types with their limits, and workers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from milepost.core.job import Job, JobStatus
from milepost.core.limits import KEEP, Limit
from milepost.core.placement import is_waiting
from milepost.core.serialization import from_micros, seconds, validate_job_type
from milepost.query.filters import parse_filter
from milepost.query.statistics import MAX_READ, check_window, failure_groups, history_of, longest_wait, read_history
from milepost.stores.protocol import Select
from milepost.stores.query import Query as JobQuery
from milepost.stores.query import position
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import JsonResponse, encoded, row
from milepost.web.live.list_subscriptions import counts_by_type
from milepost.web.schemas.fields import TYPE_PATTERN, Json, RequestModel, ResponseModel, Whole
from milepost.web.security.audit import audit
from milepost.web.security.principals import ADMIN, READ, Principal
from milepost.worker import registry

BATCH = 500
MAX_JOBS_READ = 5_000
"""Maximum number of jobs that one request reads. If there are more, the response is marked as incomplete."""
CACHE_SECONDS = 2.0


class Failures(ResponseModel):
    """Failure groups, the largest first. `q` of a group is the filter that selects its jobs."""

    groups: list[dict[str, Json]]
    complete: bool


class OldestPending(ResponseModel):
    """The pending job that has waited longest: since when it could have started, and why it has not."""

    job_id: str
    job_type: str
    since: str
    activity: str


class Stats(ResponseModel):
    """Statistics over a window, with waits and durations in seconds.

    Counts and steps are exact; p50 and p95 are at most 9 % off. They come from rollups that the store keeps, per minute for
    48 hours and per hour for 60 days, so all servers of a store agree. A step is at least a minute, or an hour in windows
    over two days. With `q`, or for a key that may read only some jobs, the newest 5,000 jobs that match are read instead.
    `complete` is False if not every end of the window is known. `waiting` jobs are pending ones that wait for other jobs, for an
    answer, or are paused or asleep, among the newest 5,000 pending jobs. `oldest_pending` is null if no job could have started; jobs
    whose start time has not come do not count.
    """

    at: str
    window: float
    step: float
    counts: dict[str, dict[str, int]]
    stalled: int
    waiting: int
    oldest_pending: OldestPending | None
    steps: list[dict[str, Json]]
    wait: dict[str, float | int | None]
    duration: dict[str, float | int | None]
    types: list[dict[str, Json]]
    complete: bool


class Workers(ResponseModel):
    """The live workers."""

    workers: list[dict[str, Json]]


class JobType(ResponseModel):
    """A job type. `published` is false if no live worker has published it."""

    name: str
    doc: str
    schema_: dict[str, Json] = Field(alias="schema")
    published: bool
    paused: bool
    limit: int | None
    counts: dict[str, int] | None


class JobTypes(ResponseModel):
    """All job types, by name."""

    job_types: list[JobType]


class LimitBody(RequestModel):
    """The limits of a job type. A `concurrency` of null removes the limit."""

    paused: bool | None = None
    concurrency: Whole | None = Field(None, ge=1, le=100_000)


def add_overview(router: APIRouter, context: WebContext) -> None:
    """Add the routes about all jobs."""
    read, admin = [context.authenticator.require(READ)], [context.authenticator.require(ADMIN)]
    remembered: dict[tuple[str, ...], tuple[float, bytes]] = {}

    async def once(principal: Principal, *asked: str, make: Callable[[], Awaitable[dict[str, Any]]]) -> Response:
        """Return the response to the same question of up to two seconds ago, if the caller has the same view; else a
        new one.
        """
        key = (f"{principal.binding} {principal.job_id}", *asked)
        until, body = remembered.get(key, (0.0, b""))
        if until < time.monotonic():
            body = encoded(await make())
            if len(remembered) > 200:
                remembered.clear()
            remembered[key] = (time.monotonic() + CACHE_SECONDS, body)
        return JsonResponse(body)

    @router.get("/api/failures", dependencies=read, response_model=Failures, responses=schemas.problems(),
                tags=["overview"], summary="List failed jobs grouped by exception type and last user frame")  # fmt: skip
    async def failures(request: Request, q: Annotated[str, Query(max_length=1980)] = "") -> Response:
        principal = principal_of(request)
        query = principal.within(parse_filter(f"status:failed {q}").query)

        async def make() -> dict[str, Any]:
            jobs, complete = await _newest_matching(context, query)
            return {"groups": [group.to_dict() for group in failure_groups(jobs)], "complete": complete}

        return await once(principal, "failures", q, make=make)

    @router.get("/api/stats", dependencies=read, response_model=Stats, responses=schemas.problems(),
                tags=["overview"], summary="Get counts, throughput, waits and durations")  # fmt: skip
    async def stats(
        request: Request,
        window: Annotated[str, Query(max_length=40, examples=["1h"])] = "1h",
        step: Annotated[str, Query(max_length=40, examples=["1m"])] = "1m",
        q: Annotated[str, Query(max_length=2000)] = "",
        job_type: Annotated[str, Query(max_length=128)] = "",
        queue: Annotated[str, Query(max_length=128)] = "",
    ) -> Response:
        principal = principal_of(request)

        async def make() -> dict[str, Any]:
            return await _stats(context, principal, (window, step), q, job_type or None, queue or None)

        return await once(principal, "stats", window, step, q, job_type, queue, make=make)

    @router.get("/api/workers", dependencies=admin, response_model=Workers, responses=schemas.problems(),
                tags=["overview"], summary="List live workers with their running jobs")  # fmt: skip
    async def workers() -> Response:
        shown = []
        for worker in await registry.read_workers(context.store):
            jobs = [await context.store.get(job_id) for job_id in worker.running[:100]]
            entry = worker.to_dict()
            for name in ("since", "seen"):
                entry[f"{name}_at"] = from_micros(int(entry.pop(name) * 1_000_000)).isoformat()
            shown.append({**entry, "jobs": [row(job) for job in jobs if job is not None]})
        return JsonResponse({"workers": shown})

    @router.get("/api/job-types", dependencies=read, response_model=JobTypes, responses=schemas.problems(),
                tags=["overview"], summary="List job types with their parameter schemas and limits")  # fmt: skip
    async def job_types(request: Request) -> Response:
        limits = await context.store.limits()
        counts = {} if principal_of(request).bound else counts_by_type(await context.store.counts())
        known = {job_type.name: job_type for job_type in await registry.read_types(context.store)}
        names = sorted({*known, *counts})
        shown = [_type(name, known.get(name), limits.get(name), counts.get(name)) for name in names]
        return JsonResponse({"job_types": shown})

    @router.patch("/api/job-types/{job_type:path}", dependencies=admin, response_model=JobType,
                  responses=schemas.problems(), tags=["overview"],
                  summary="Pause a job type, or limit its concurrency across all workers")  # fmt: skip
    async def limit_type(
        request: Request, job_type: Annotated[str, Path(pattern=TYPE_PATTERN)], body: LimitBody
    ) -> Response:
        name = validate_job_type(job_type)
        running = body.concurrency if "concurrency" in body.model_fields_set else KEEP
        await context.store.set_limit(name, running, KEEP if body.paused is None else body.paused, KEEP)
        now = (await context.store.limits()).get(name, Limit())
        await audit(
            context.store, principal_of(request), "type.limit", name, concurrency=now.running, paused=now.paused
        )
        known = {one.name: one for one in await registry.read_types(context.store)}
        return JsonResponse(_type(name, known.get(name), now, None))


def _type(
    name: str, known: registry.JobType | None, limits: Limit | None, counts: dict[str, int] | None
) -> dict[str, Any]:
    limit = limits or Limit()
    shown = (known if known is not None else registry.JobType(name)).to_dict()
    return {**shown, "published": known is not None, "limit": limit.running, "paused": limit.paused, "counts": counts}


async def _newest_matching(context: WebContext, query: JobQuery) -> tuple[list[Job], bool]:
    """Return the jobs of a query among the newest that its selection has, and whether these are all."""
    jobs: list[Job] = []
    after = None
    for _ in range(MAX_JOBS_READ // BATCH):
        await asyncio.sleep(0)  # a store in memory never suspends
        read = await context.store.select(query.select, BATCH, after)
        jobs += [job for job in read if all(test(job) for test in query.tests)]
        if len(read) < BATCH:
            return jobs, True
        after = position(read[-1])
    return jobs, False


async def _waiting(context: WebContext, now: int) -> list[Job]:
    """Return the jobs among the newest pending ones that wait for others, for an answer, or are paused or asleep."""
    return (await _newest_matching(context, parse_filter("status:pending is:waiting", now=now).query))[0]


async def _oldest_pending(context: WebContext, pending: list[Job], now: int) -> dict[str, Any] | None:
    """Return which of some pending jobs has waited longest, since when, and why."""
    found = longest_wait(pending, from_micros(now))
    if found is None:
        return None
    (job,) = await context.expected.describe([found.job])
    return {"job_id": job.job_id, "job_type": job.job_type, "since": found.since.isoformat(), "activity": job.activity}


async def _stats(
    context: WebContext, principal: Principal, times: tuple[str, str], q: str, job_type: str | None, queue: str | None
) -> dict[str, Any]:
    """Return the numbers. Without a filter they come from the counts and the rollups of the store, and no jobs are read
    but the oldest pending ones.

    With a filter, or for a caller bound to labels, the newest jobs that match are read, up to a limit.
    """
    window, step = seconds(times[0], "window"), seconds(times[1], "step")
    check_window(window, step)
    now = await context.store.now()
    query = principal.within(parse_filter(q, now=now).query)
    if query == JobQuery():
        history = await read_history(context.store, window, step, job_type=job_type, queue=queue)
        counts = counts_by_type(await context.store.counts())
        pending = await context.store.oldest(JobStatus.PENDING.value, MAX_READ)
        waits = await _waiting(context, now) if pending else []
    else:
        jobs, complete = await _newest_matching(context, query)
        jobs = [job for job in jobs if job_type in (None, job.job_type)]
        history = history_of(jobs, now, window, step, complete=complete)
        counts = counts_by_type(Counter((job.job_type, job.status.value) for job in jobs))
        waits = [job for job in jobs if is_waiting(job, now)]
        # Of an incomplete selection the newest jobs are known, and not the oldest.
        pending = [job for job in jobs if job.status is JobStatus.PENDING] if complete else []
    select = query.select
    stalled = Select(select.types, select.statuses, select.labels, stalled=True)
    flagged = await context.store.count(stalled)
    if flagged is None:
        flagged = len(await context.store.select(stalled, 1000))
    return {
        "at": from_micros(now).isoformat(),
        "counts": counts,
        "stalled": flagged,
        "waiting": len(waits),
        "oldest_pending": await _oldest_pending(context, pending, now),
        **history.to_dict(),
    }
