"""List, set and remove limits on the jobs of all workers that run at once."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from milepost.core.limits import KEEP, Limit, limit_states, validate_limit
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import encoded
from milepost.web.security.audit import audit
from milepost.web.security.principals import ADMIN

JSON = "application/json"


def add_limits(router: APIRouter, context: WebContext) -> None:
    """Add the routes for limits."""
    admin = [context.authenticator.require(ADMIN)]

    async def put(request: Request, key: str, running: int | None, per_partition: int | None) -> Response:
        validate_limit(key, running, per_partition)
        await context.store.set_limit(key, running, KEEP, per_partition)
        await audit(
            context.store, principal_of(request), "limit.set", key, running=running, per_partition=per_partition
        )
        limit = {key: Limit(running, per_partition=per_partition)}
        shown = [one.to_dict() for one in limit_states(limit, await context.store.held_slots())]
        return Response(encoded(shown[0]), media_type=JSON) if shown else Response(status_code=204)

    @router.get("/api/limits", dependencies=admin, response_model=schemas.LimitList, responses=schemas.problems(),
                tags=["limits"], summary="List limits with the jobs that run under each, also by partition")  # fmt: skip
    async def list_limits() -> Response:
        found = limit_states(await context.store.limits(), await context.store.held_slots())
        return Response(encoded({"limits": [one.to_dict() for one in found]}), media_type=JSON)

    @router.put("/api/limits/{key:path}", dependencies=admin, response_model=schemas.LimitRecord,
                responses=schemas.problems(), tags=["limits"],
                summary="Limit how many jobs of a limit key, and of each of its partitions, run at once")  # fmt: skip
    async def set_limit(request: Request, key: str, body: schemas.LimitSettings) -> Response:
        return await put(request, key, body.running, body.per_partition)

    @router.delete("/api/limits/{key:path}", dependencies=admin, status_code=204, response_class=Response,
                   responses=schemas.problems(), tags=["limits"], summary="Remove the limits of a limit key")  # fmt: skip
    async def remove_limit(request: Request, key: str) -> Response:
        return await put(request, key, None, None)
