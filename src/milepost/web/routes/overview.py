"""The whole at a glance: failures in groups, numbers, types and their limits, workers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
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
from milepost.web.ends import walk
from milepost.web.failures import failure_groups
from milepost.web.models.shapes import TYPE_PATTERN
from milepost.web.principals import ADMIN, READ, Principal
from milepost.web.site import Site, who
from milepost.web.tallies import Tallies
from milepost.web.wire import encoded, row
from milepost.worker.published import JobType, read_types, read_workers

JSON = "application/json"
LOOKED_AT_MAX = 5_000
"""Jobs that one call reads at most; beyond, its answer says that it is not complete."""
REMEMBERED = 2.0
STEPS_MAX = 1000


def add_overview(router: APIRouter, site: Site) -> None:
    """Add the calls about everything at once."""
    read, admin = [site.gate.need(READ)], [site.gate.need(ADMIN)]
    remembered: dict[tuple[str, ...], tuple[float, bytes]] = {}

    async def once(principal: Principal, *asked: str, make: Callable[[], Awaitable[dict[str, Any]]]) -> Response:
        """The answer of two seconds ago, when the same was asked by one who sees the same; else a new one."""
        key = (f"{principal.binding} {principal.job_id}", *asked)
        until, body = remembered.get(key, (0.0, b""))
        if until < time.monotonic():
            body = encoded(await make())
            if len(remembered) > 200:
                remembered.clear()
            remembered[key] = (time.monotonic() + REMEMBERED, body)
        return Response(body, media_type=JSON)

    @router.get("/api/failures", dependencies=read, response_model=models.Failures, responses=models.problems(),
                tags=["overview"], summary="Failed jobs by exception type and last user frame")  # fmt: skip
    async def failures(request: Request, q: Annotated[str, Query(max_length=1980)] = "") -> Response:
        principal = who(request)
        query = principal.within(parse_filter(f"status:failed {q}").query)

        async def make() -> dict[str, Any]:
            jobs, complete = await _look(site, query)
            return {"groups": failure_groups(jobs), "complete": complete}

        return await once(principal, "failures", q, make=make)

    @router.get("/api/stats", dependencies=read, response_model=models.Stats, responses=models.problems(),
                tags=["overview"], summary="Counts, throughput, waits and durations")  # fmt: skip
    async def stats(
        request: Request,
        window: Annotated[str, Query(max_length=40, examples=["1h"])] = "1h",
        step: Annotated[str, Query(max_length=40, examples=["1m"])] = "1m",
        q: Annotated[str, Query(max_length=2000)] = "",
    ) -> Response:
        principal = who(request)
        return await once(principal, "stats", window, step, q, make=lambda: _stats(site, principal, window, step, q))

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


async def _look(site: Site, query: JobQuery) -> tuple[list[Job], bool]:
    """The newest jobs of a query, up to a bound; whether they are all."""
    jobs = [job async for job in walk(site.store, query, LOOKED_AT_MAX)]
    return [job for job in jobs if job is not None], None not in jobs


async def _stats(site: Site, principal: Principal, window: str, step: str, q: str) -> dict[str, Any]:
    """The numbers. For one who sees everything and asks for no filter they come from counts that are kept: no job is read.

    Others are bound to labels or a filter that no index counts: the newest jobs that match are read, up to a bound.
    """
    long, short = seconds(window, "window"), seconds(step, "step")
    if long <= 0 or long > 366 * 86_400:
        raise InvalidInput("window", "must be more than 0 and at most a year")
    if short <= 0 or long / short > STEPS_MAX:
        raise InvalidInput("step", f"must be more than 0, and the window at most {STEPS_MAX} steps")
    now = await site.store.now()
    query = principal.within(parse_filter(q, now=now).query)
    if query == JobQuery():
        tallies = await site.ends.known()
        complete = site.ends.complete(now - int(long * 1_000_000))
        counts = nested(await site.store.counts())
    else:
        jobs, complete = await _look(site, query)
        tallies, numbers = Tallies(), dict[tuple[str, str], int]()
        for job in jobs:
            tallies.add(job)
            kind = (job.job_type, job.status.value)
            numbers[kind] = numbers.get(kind, 0) + 1
        counts = nested(numbers)
    select = query.select
    stalled = Select(select.types, select.statuses, select.labels, stalled=True)
    flagged = await site.store.count(stalled)
    if flagged is None:
        flagged = len(await site.store.select(stalled, 1000))
    return {
        "at": moment(now).isoformat(),
        "window": long,
        "counts": counts,
        "stalled": flagged,
        **tallies.overview(now, long, short),
        "complete": complete,
    }
