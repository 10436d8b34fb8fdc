"""Open, count and close batches. Their jobs are submitted with `group`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from milepost.app.batches import AsyncBatch
from milepost.core.errors import InvalidInputError
from milepost.core.placement import BATCH, is_batch
from milepost.core.serialization import single_line
from milepost.stores.ids import new_job_id
from milepost.web import schemas
from milepost.web.api.submit import seen_bytes
from milepost.web.context import WebContext, job_url, principal_of
from milepost.web.http.json_body import JsonResponse
from milepost.web.http.problems import Problem
from milepost.web.schemas.fields import ID_PATTERN, RequestModel, ResponseModel, Status
from milepost.web.security.principals import READ, WRITE, Principal


class BatchBody(RequestModel):
    """A batch to open, or to continue. Without `name` it gets a new one. Jobs join it with `group`."""

    name: str | None = Field(None, pattern=ID_PATTERN, examples=["import-42"])
    labels: dict[str, str] | None = None


class CloseBody(RequestModel):
    """With `error` the batch fails, and its open jobs are cancelled."""

    error: str | None = Field(None, min_length=1, max_length=1000)


class BatchCounts(ResponseModel):
    """A batch with the exact numbers of its jobs. `open` ones have not ended. `progress` is the part that has, from 0 to 1.

    `closed` is whether it accepts no more jobs. It ends, with its `status`, when it is closed and none is open.
    """

    name: str
    status: Status
    closed: bool
    total: int
    open: int
    completed: int
    failed: int
    cancelled: int
    progress: float = Field(ge=0, le=1)


class ClosedBatch(ResponseModel):
    """A batch that was closed, as in BatchCounts. A key without `jobs:read` gets no counts."""

    name: str
    status: Status
    closed: bool
    total: int | None = None
    open: int | None = None
    completed: int | None = None
    failed: int | None = None
    cancelled: int | None = None
    progress: float = Field(ge=0, le=1)


def add_batches(router: APIRouter, context: WebContext) -> None:
    """Add the routes for batches."""
    read, write = [context.authenticator.require(READ)], [context.authenticator.require(WRITE)]

    async def visible(request: Request, name: str) -> AsyncBatch:
        job = await context.visible_job(request, name)
        if not is_batch(job):
            raise Problem(404, f"Job {name!r:.140} is not a batch")
        return context.manager.batch(name)

    async def counted(request: Request, batch: AsyncBatch) -> Response:
        counts = await batch.counts()
        numbers = counts.to_dict() if principal_of(request).may(READ) else {}
        job = await context.store.get(batch.name)
        status = "completed" if job is None else job.status.value
        closed = job is None or job.is_terminal or "closed" in job.record
        body = {"name": batch.name, "status": status, "closed": closed, **numbers, "progress": counts.progress}
        return JsonResponse(body)

    @router.post("/api/batches", dependencies=write, response_model=schemas.JobRecord, status_code=201,
                 responses={**schemas.problems(409), 200: {"model": schemas.JobRecord, "description": "It was open; it is continued"}},
                 tags=["batches"], summary="Open a batch, or continue an open one")  # fmt: skip
    async def open_batch(request: Request, body: BatchBody) -> Response:
        principal = principal_of(request)
        await context.may_start(principal, BATCH, "manual")
        is_new = body.name is None or await context.manager.get_job(body.name) is None
        if is_new:
            await context.quotas.before_create(principal, BATCH)
            await context.quotas.before_submit(principal)
        name = await _name(context, principal, body.name)
        batch = context.manager.batch(name, labels=principal.bound_options(body.labels)["labels"])
        await batch.open()
        job = await context.visible_job(request, name)
        if is_new:
            context.quotas.submitted(principal, name)
        headers = {"Location": job_url(request, name, route="batches"), "Cache-Control": "no-store"}
        return JsonResponse(seen_bytes(principal, job), 201 if is_new else 200, headers)

    @router.get("/api/batches/{name}", dependencies=read, response_model=BatchCounts,
                responses=schemas.problems(404), tags=["batches"], summary="Count the jobs of a batch")  # fmt: skip
    async def count_batch(request: Request, name: str) -> Response:
        return await counted(request, await visible(request, name))

    @router.post("/api/batches/{name}/close", dependencies=write, response_model=ClosedBatch,
                 responses=schemas.problems(404), tags=["batches"],
                 summary="Close a batch: it ends when none of its jobs is open")  # fmt: skip
    async def close_batch(request: Request, name: str, body: CloseBody | None = None) -> Response:
        batch = await visible(request, name)
        error = body.error if body is not None else None
        await (batch.close() if error is None else batch.fail(single_line(error)))
        return await counted(request, batch)


async def _name(context: WebContext, principal: Principal, name: str | None) -> str:
    """Return the name of the batch to open. With a key that is restricted to labels it is a new one, or a batch that it sees."""
    if name is None:
        return new_job_id()
    if principal.bound:
        job = await context.manager.get_job(name)
        if job is None or not principal.sees(job):
            raise InvalidInputError("name", "cannot be set with a key that is restricted to labels; omit it")
    return name
