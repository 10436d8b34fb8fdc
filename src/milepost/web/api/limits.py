"""List, set and remove limits on the jobs of all workers, and close and open gates."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import Field, model_validator
from starlette.responses import Response

from milepost.core.limits import MAX_LIMIT, MAX_PERIOD
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import JsonResponse
from milepost.web.schemas.fields import RequestModel, ResponseModel, Whole
from milepost.web.security.audit import audit
from milepost.web.security.principals import ADMIN


class LimitSettings(RequestModel):
    """At most `running` jobs with the limit key run at once, `per_partition` of each partition, and start at the rate; null
    is no limit."""

    running: Whole | None = Field(None, ge=0, le=MAX_LIMIT, examples=[8])
    per_partition: Whole | None = Field(None, ge=1, le=MAX_LIMIT, examples=[2])
    rate: str | None = Field(None, description="Starts per period.", max_length=40, examples=["500/min"])

    @model_validator(mode="after")
    def _sets_one(self) -> LimitSettings:
        if self.running is None and self.per_partition is None and self.rate is None:
            raise ValueError("running, per_partition or rate must be set; DELETE removes a limit")
        return self


class GateClosing(RequestModel):
    """For how long no job with the limit key starts."""

    seconds: float = Field(ge=0, le=MAX_PERIOD, examples=[30])


class LimitRecord(ResponseModel):
    """A limit with its use: the number of jobs that run under it, also by partition, and of those that wait for nothing but a
    worker, the limit, the rate or the gate.
    """

    key: str
    running: int | None
    per_partition: int | None
    leases: int
    partitions: dict[str, int]
    rate: str | None
    gate_until: str | None
    claimable: int


class LimitList(ResponseModel):
    """All limits, by key."""

    limits: list[LimitRecord]


def add_limits(router: APIRouter, context: WebContext) -> None:
    """Add the routes for limits."""
    admin = [context.authenticator.require(ADMIN)]

    @router.get("/api/limits", dependencies=admin, response_model=LimitList, responses=schemas.problems(),
                tags=["limits"], summary="List limits with the jobs that run under each, also by partition")  # fmt: skip
    async def list_limits() -> Response:
        return JsonResponse({"limits": [one.to_dict() for one in await context.manager.limits()]})

    @router.put("/api/limits/{key:path}", dependencies=admin, response_model=LimitRecord,
                responses=schemas.problems(404), tags=["limits"],
                summary="Limit how many jobs of a limit key, and of each of its partitions, run at once, and how often they start")  # fmt: skip
    async def set_limit(request: Request, key: str, body: LimitSettings) -> Response:
        limit = body.model_dump()
        await context.manager.limit(key, **limit)
        await audit(context.store, principal_of(request), "limit.set", key, **limit)
        shown = next((one for one in await context.manager.limits() if one.key == key), None)
        return JsonResponse(shown.to_dict()) if shown is not None else Response(status_code=204)

    @router.delete("/api/limits/{key:path}", dependencies=admin, status_code=204, response_class=Response,
                   responses=schemas.problems(404), tags=["limits"], summary="Remove the limits of a limit key")  # fmt: skip
    async def remove_limit(request: Request, key: str) -> Response:
        await context.manager.remove_limit(key)
        await audit(context.store, principal_of(request), "limit.set", key, running=None, per_partition=None, rate=None)
        return Response(status_code=204)

    @router.put("/api/gates/{key:path}", dependencies=admin, status_code=204, response_class=Response,
                responses=schemas.problems(404), tags=["limits"],
                summary="Let no job of a limit key start for some time; a gate that is closed for longer stays so")  # fmt: skip
    async def put_gate(request: Request, key: str, body: GateClosing) -> Response:
        await context.manager.close_gate(key, body.seconds)
        await audit(context.store, principal_of(request), "gate.close", key, seconds=body.seconds)
        return Response(status_code=204)

    @router.delete("/api/gates/{key:path}", dependencies=admin, status_code=204, response_class=Response,
                   responses=schemas.problems(404), tags=["limits"], summary="Let jobs of a limit key start again")  # fmt: skip
    async def delete_gate(request: Request, key: str) -> Response:
        await context.manager.open_gate(key)
        await audit(context.store, principal_of(request), "gate.open", key)
        return Response(status_code=204)
