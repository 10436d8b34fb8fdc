"""List, make, pause, resume, fire and remove schedules."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from milepost.core.errors import InvalidInputError, ScheduleNotFoundError
from milepost.core.schedule import SCHEDULE_OPTIONS, CatchUp, Overlap, Schedule
from milepost.manager.schedules import resume_schedule as resume
from milepost.run.schedules import read_schedules
from milepost.web import schemas
from milepost.web.api.submit import seen_bytes
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import JsonResponse
from milepost.web.http.problems import Problem
from milepost.web.schemas.fields import TYPE_PATTERN, Json, RequestModel, ResponseModel
from milepost.web.security.audit import audit
from milepost.web.security.principals import DELETE, READ, WRITE, Principal, limit_reached

MAX_OWN = 100
"""The most schedules of one key or user: the jobs that they make do not count as its pending jobs."""


class ScheduleBody(RequestModel):
    """When to make jobs of which type. Either `cron`, in the local time of `tz`, or `every`, an interval in seconds.

    `options` are those of a submit, for example priority, queue or budget, except for those that belong to one job: job_id,
    on_duplicate, not_before, not_after, after, group and parent_id.
    """

    job_type: str = Field(pattern=TYPE_PATTERN, examples=["reindex"])
    cron: str | None = Field(None, max_length=200, examples=["0 3 * * *"])
    every: float | None = Field(None, ge=1, le=366 * 86_400)
    tz: str = Field("UTC", min_length=1, max_length=100, examples=["Europe/Berlin"])
    catch_up: CatchUp = "last"
    overlap: Overlap = "skip"
    params: dict[str, Json] = Field(default_factory=dict)
    labels: dict[str, str] | None = None
    options: dict[str, Json] = Field(default_factory=dict, max_length=20, examples=[{"priority": 5}])


class ScheduleRecord(ResponseModel):
    """A schedule. `paused` is why it makes no jobs: `user`, `undeclared` or `key_ended`. `upcoming` are its next ticks."""

    name: str
    job_type: str
    cron: str | None
    every: float | None
    tz: str
    catch_up: str
    overlap: str
    next_at: str | None
    last_at: str | None
    last_job_id: str | None
    fired: int
    skipped: int
    paused: str | None
    release: str | None
    declared_at: str | None
    overridden: bool
    created_at: str | None
    created_by: str | None
    labels: dict[str, str]
    params: dict[str, Json]
    upcoming: list[str]


class ScheduleList(ResponseModel):
    """All schedules that the caller may see, by name."""

    schedules: list[ScheduleRecord]


def add_schedules(router: APIRouter, context: WebContext) -> None:
    """Add the routes for schedules."""
    read, write = [context.authenticator.require(READ)], [context.authenticator.require(WRITE)]
    delete = [context.authenticator.require(DELETE)]

    async def visible(request: Request, name: str) -> Schedule:
        """Return a schedule. Raises the same error if it does not exist or the caller may not see it."""
        schedule = await context.manager.get_schedule(name)
        if not _sees(principal_of(request), schedule):
            raise ScheduleNotFoundError(name)
        return schedule

    async def startable(request: Request, name: str) -> None:
        schedule = await visible(request, name)
        queue = schedule.queue or schedule.job_type
        principal = principal_of(request)
        await context.may_start(principal, schedule.job_type, "worker", queue, schedule.origin)
        if not principal.may_prioritise(schedule.priority):
            raise Problem(403, f"This key starts no jobs with a priority above {principal.max_priority}")

    def answer(schedule: Schedule, status: int = 200) -> Response:
        return JsonResponse(schedule.to_dict(), status)

    @router.get("/api/schedules", dependencies=read, response_model=ScheduleList, responses=schemas.problems(),
                tags=["schedules"], summary="List schedules with their next five ticks")  # fmt: skip
    async def list_schedules(request: Request) -> Response:
        found = [one for one in await context.manager.list_schedules() if _sees(principal_of(request), one)]
        return JsonResponse({"schedules": [one.to_dict() for one in found]})

    @router.get("/api/schedules/{name}", dependencies=read, response_model=ScheduleRecord,
                responses=schemas.problems(404), tags=["schedules"], summary="Read a schedule")  # fmt: skip
    async def get_schedule(request: Request, name: str) -> Response:
        return answer(await visible(request, name))

    @router.put("/api/schedules/{name}", dependencies=write, response_model=ScheduleRecord,
                responses=schemas.problems(409), tags=["schedules"],
                summary="Make a schedule, or change the one of this name")  # fmt: skip
    async def put_schedule(request: Request, name: str, body: ScheduleBody) -> Response:
        principal = principal_of(request)
        options = _options(body, principal)
        queue = options.get("queue")
        if principal.queues and queue is None:
            queue = await context.manager.submissions.default_queue(body.job_type)
        await context.may_start(principal, body.job_type, "worker", queue)
        if not principal.unlimited:
            found = await read_schedules(context.store)
            if sum(one.created_by == principal.id and one.name != name for _, one in found) >= MAX_OWN:
                raise limit_reached("Too many schedules of this key or user", MAX_OWN, 60)

        def may_change(found: Schedule) -> None:
            if not _sees(principal, found):
                raise Problem(409, f"The name {name!r:.100} is in use by a schedule that this key may not see")

        made = await context.manager.add_schedule(
            name, body.job_type, cron=body.cron, every=body.every, tz=body.tz, catch_up=body.catch_up,
            overlap=body.overlap, params=body.params, created_by=principal.id, options=options,
            may_change=may_change,
        )  # fmt: skip
        await audit(context.store, principal, "schedule.put", name, job_type=body.job_type)
        return answer(made)

    @router.delete("/api/schedules/{name}", dependencies=delete, status_code=204, response_class=Response,
                   responses=schemas.problems(404), tags=["schedules"], summary="Remove a schedule; its jobs stay")  # fmt: skip
    async def remove_schedule(request: Request, name: str) -> Response:
        await visible(request, name)
        await context.manager.remove_schedule(name)
        await audit(context.store, principal_of(request), "schedule.remove", name)
        return Response(status_code=204)

    @router.post("/api/schedules/{name}/pause", dependencies=write, response_model=ScheduleRecord,
                 responses=schemas.problems(404), tags=["schedules"], summary="Pause a schedule")  # fmt: skip
    async def pause_schedule(request: Request, name: str) -> Response:
        await visible(request, name)
        return answer(await context.manager.pause_schedule(name))

    @router.post("/api/schedules/{name}/resume", dependencies=write, response_model=ScheduleRecord,
                 responses=schemas.problems(404), tags=["schedules"],
                 summary="Resume a paused schedule; ticks during the pause make no jobs")  # fmt: skip
    async def resume_schedule(request: Request, name: str) -> Response:
        await startable(request, name)
        return answer(await resume(context.store, name, by=principal_of(request).id))

    @router.post("/api/schedules/{name}/fire", dependencies=write, status_code=201, response_model=schemas.JobRecord,
                 responses=schemas.problems(404, 409), tags=["schedules"],
                 summary="Make a job of a schedule now; its ticks stay as they are")  # fmt: skip
    async def fire_schedule(request: Request, name: str) -> Response:
        principal = principal_of(request)
        await startable(request, name)
        await context.quotas.before_submit(principal)
        job = await context.manager.fire_schedule(name)
        context.quotas.submitted(principal, job.job_id)
        return JsonResponse(seen_bytes(principal, job), 201)


def _sees(principal: Principal, schedule: Schedule) -> bool:
    """Return whether the caller may see a schedule: one whose jobs it may see."""
    labels = principal.labels.items()
    return principal.job_id is None and all(schedule.labels.get(name) == value for name, value in labels)


def _options(body: ScheduleBody, principal: Principal) -> dict[str, Any]:
    """Return the options of the jobs, restricted by the principal. Raises InvalidInputError."""
    settable = SCHEDULE_OPTIONS - {"labels"}  # a field of the body
    for name in body.options:
        if name not in settable:
            raise InvalidInputError(
                f"options.{name}", f"is not an option of a schedule; use {', '.join(sorted(settable))}"
            )
    restricted = {name: body.options.get(name) for name in ("unique_key", "limit_key", "partition", "priority")}
    options = {**body.options, **principal.bound_options(body.labels, **restricted)}
    return {name: value for name, value in options.items() if value is not None}
