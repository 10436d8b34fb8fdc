"""The whole at a glance: failures in groups, numbers, types and their limits, workers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from milepost.core.encoding import job_type_text, moment, seconds
from milepost.core.errors import InvalidInput
from milepost.core.job import Job
from milepost.stores.filters import parse_filter
from milepost.stores.protocol import Select
from milepost.stores.query import Query as JobQuery
from milepost.web import models
from milepost.web.audit import audit
from milepost.web.boards import nested
from milepost.web.models.shapes import TYPE_PATTERN
from milepost.web.percentiles import failure_groups, overview
from milepost.web.principals import ADMIN, READ, Principal
from milepost.web.site import Site, who
from milepost.web.wire import encoded, row
from milepost.worker.published import JobType, read_types, read_workers

JSON = "application/json"
LOOKED_AT_MAX = 20_000
"""Jobs that one overview reads at most; beyond, it says that it is not complete."""
REMEMBERED = 2.0
STEPS_MAX = 1000
ENDED = ("completed", "failed", "cancelled")


def add_overview(router: APIRouter, site: Site) -> None:
    """Add the calls about everything at once."""
    read, admin = [site.gate.need(READ)], [site.gate.need(ADMIN)]
    remembered: dict[tuple[str, str, str, str], tuple[float, bytes]] = {}

    @router.get("/api/failures", dependencies=read, response_model=models.Failures, responses=models.problems(),
                tags=["overview"], summary="Failed jobs by exception type and last user frame")  # fmt: skip
    async def failures(request: Request, q: Annotated[str, Query(max_length=1980)] = "") -> Response:
        jobs, complete = await _look(site, who(request), parse_filter(f"status:failed {q}").query)
        return Response(encoded({"groups": failure_groups(jobs), "complete": complete}), media_type=JSON)

    @router.get("/api/stats", dependencies=read, response_model=models.Stats, responses=models.problems(),
                tags=["overview"], summary="Counts, throughput, waits and durations")  # fmt: skip
    async def stats(
        request: Request,
        window: Annotated[str, Query(max_length=40, examples=["1h"])] = "1h",
        step: Annotated[str, Query(max_length=40, examples=["1m"])] = "1m",
        q: Annotated[str, Query(max_length=2000)] = "",
    ) -> Response:
        principal = who(request)
        key = (f"{principal.binding} {principal.job_id}", window, step, q)
        until, body = remembered.get(key, (0.0, b""))
        if until < time.monotonic():
            body = encoded(await _stats(site, principal, window, step, q))
            if len(remembered) > 200:
                remembered.clear()
            remembered[key] = (time.monotonic() + REMEMBERED, body)
        return Response(body, media_type=JSON)

    @router.get("/api/workers", dependencies=admin, response_model=models.Workers, responses=models.problems(),
                tags=["overview"], summary="The workers that live, with what they run")  # fmt: skip
    async def workers() -> Response:
        shown = []
        for worker in await read_workers(site.store):
            jobs = [await site.store.get(job_id) for job_id in worker.running[:100]]
            entry = worker.to_dict()
            for name in ("since", "seen"):
                entry[f"{name}_at"] = moment(int(entry.pop(name) * 1_000_000)).isoformat()
            shown.append({**entry, "jobs": [row(job) for job in jobs if job is not None]})
        return Response(encoded({"workers": shown}), media_type=JSON)

    @router.get("/api/job-types", dependencies=read, response_model=models.JobTypes, responses=models.problems(),
                tags=["overview"], summary="The types of jobs, with the schema of their parameters")  # fmt: skip
    async def job_types(request: Request) -> Response:
        limits = await site.store.limits()
        counts = {} if who(request).bound else nested(await site.store.counts())
        known = {job_type.name: job_type for job_type in await read_types(site.store)}
        names = sorted({*known, *counts})
        shown = [_type(name, known.get(name), limits.get(name), counts.get(name)) for name in names]
        return Response(encoded({"job_types": shown}), media_type=JSON)

    @router.patch("/api/job-types/{job_type:path}", dependencies=admin, response_model=models.JobTypeShape,
                  responses=models.problems(), tags=["overview"],
                  summary="Pause a type, or limit how many of it run at once, for all workers")  # fmt: skip
    async def limit_type(
        request: Request, job_type: Annotated[str, Path(pattern=TYPE_PATTERN)], body: models.LimitBody
    ) -> Response:
        name = job_type_text(job_type)
        before_limit, before_paused = (await site.store.limits()).get(name, (None, False))
        given = body.model_fields_set
        limit = body.concurrency if "concurrency" in given else before_limit
        paused = bool(body.paused) if body.paused is not None else before_paused
        await site.store.set_limit(name, limit, paused)
        await audit(site.store, who(request), "type.limit", name, concurrency=limit, paused=paused)
        known = {one.name: one for one in await read_types(site.store)}
        return Response(encoded(_type(name, known.get(name), (limit, paused), None)), media_type=JSON)


def _type(
    name: str, known: JobType | None, limits: tuple[int | None, bool] | None, counts: dict[str, int] | None
) -> dict[str, Any]:
    limit, paused = limits if limits is not None else (None, False)
    shown = (known if known is not None else JobType(name)).to_dict()
    return {**shown, "published": known is not None, "limit": limit, "paused": paused, "counts": counts}


async def _walk(site: Site, query: JobQuery) -> AsyncIterator[Job]:
    cursor: str | None = None
    while True:
        page = await site.manager.find(query, 1000, cursor)
        for job in page.jobs:
            yield job
        cursor = page.next_cursor
        if cursor is None:
            return


async def _look(site: Site, principal: Principal, query: JobQuery) -> tuple[list[Job], bool]:
    """The newest jobs of a query, up to a bound; whether they are all."""
    jobs: list[Job] = []
    async for job in _walk(site, principal.within(query)):
        jobs.append(job)
        if len(jobs) >= LOOKED_AT_MAX:
            return jobs, False
    return jobs, True


async def _stats(site: Site, principal: Principal, window: str, step: str, q: str) -> dict[str, Any]:
    long, short = seconds(window, "window"), seconds(step, "step")
    if long <= 0 or long > 366 * 86_400:
        raise InvalidInput("window", "must be more than 0 and at most a year")
    if short <= 0 or long / short > STEPS_MAX:
        raise InvalidInput("step", f"must be more than 0, and the window at most {STEPS_MAX} steps")
    now = await site.store.now()
    query = parse_filter(q, now=now).query
    select = query.select
    ended = tuple(status for status in ENDED if not select.statuses or status in select.statuses)
    # There is no index by end and label: jobs are looked at by creation, newest first, from two windows ago, since a job
    # that ended in this one may have been created long before it.
    early = now - int((long * 2 + 86_400) * 1_000_000)
    wanted = Select(select.types, ended or ENDED, select.labels, select.stalled,
                    max(early, select.created_after or 0), select.created_before)  # fmt: skip
    jobs, complete = await _look(site, principal, JobQuery(wanted, query.tests))
    if principal.bound or q:
        counts: dict[str, dict[str, int]] = {}
        everything, all_counted = await _look(site, principal, query)
        complete = complete and all_counted
        for job in everything:
            by_status = counts.setdefault(job.job_type, {})
            by_status[job.status.value] = by_status.get(job.status.value, 0) + 1
    else:
        counts = nested(await site.store.counts())
    stalled = Select(select.types, select.statuses, (*select.labels, *principal.labels.items()), True)
    flagged = await site.store.count(stalled)
    if flagged is None:
        flagged = len(await site.store.select(stalled, 1000))
    return {
        "at": moment(now).isoformat(),
        "window": long,
        "step": short,
        "counts": counts,
        "stalled": flagged,
        **overview(jobs, now, long, short),
        "complete": complete,
    }
