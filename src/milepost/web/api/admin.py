"""Store diagnostics and retention, for operators."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from milepost.core.serialization import from_micros
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import encoded
from milepost.web.security.audit import audit
from milepost.web.security.principals import ADMIN


def add_admin(router: APIRouter, context: WebContext) -> None:
    """Add the routes for operators."""
    admin = [context.authenticator.require(ADMIN)]

    @router.get("/api/doctor", dependencies=admin, response_model=schemas.Doctor, responses=schemas.problems(),
                tags=["operation"], summary="Check the health of the store")  # fmt: skip
    async def doctor() -> Response:
        fitness = await context.store.check_health()
        stopping = [
            {"job_id": job_id, "expires_at": from_micros(expires).isoformat()}
            for job_id, _, expires in await context.store.draining_leases()
        ]
        body = {
            "store": fitness.kind,
            "version": fitness.version,
            "layout": fitness.layout,
            "durability": fitness.durability,
            "warnings": list(fitness.warnings),
            "details": dict(fitness.details),
            "stopping": stopping,
            "streams": context.hub.clients,
        }
        return Response(encoded(body), media_type="application/json")

    @router.post("/api/purge", dependencies=admin, response_model=schemas.Purged, responses=schemas.problems(),
                 tags=["operation"], summary="Delete jobs past their retention time now")  # fmt: skip
    async def purge(request: Request) -> Response:
        removed = await context.manager.runtime.sweeper.purge()
        await audit(context.store, principal_of(request), "purge", removed=removed)
        return Response(encoded({"removed": removed}), media_type="application/json")
