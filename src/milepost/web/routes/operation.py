"""What an operator asks: is the store well, and retention now."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from milepost.core.encoding import moment
from milepost.web import models
from milepost.web.audit import audit
from milepost.web.principals import ADMIN
from milepost.web.site import Site, who
from milepost.web.wire import encoded


def add_operation(router: APIRouter, site: Site) -> None:
    """Add the calls of an operator."""
    admin = [site.gate.need(ADMIN)]

    @router.get("/api/doctor", dependencies=admin, response_model=models.Doctor, responses=models.problems(),
                tags=["operation"], summary="The store, examined")  # fmt: skip
    async def doctor() -> Response:
        fitness = await site.store.examine()
        stopping = [
            {"job_id": job_id, "expires_at": moment(expires).isoformat()}
            for job_id, _, expires in await site.store.stoppings()
        ]
        body = {
            "store": fitness.kind,
            "version": fitness.version,
            "layout": fitness.layout,
            "durability": fitness.durability,
            "warnings": list(fitness.warnings),
            "details": dict(fitness.details),
            "stopping": stopping,
            "streams": site.hub.clients,
        }
        return Response(encoded(body), media_type="application/json")

    @router.post("/api/purge", dependencies=admin, response_model=models.Purged, responses=models.problems(),
                 tags=["operation"], summary="Remove, now, what retention would remove")  # fmt: skip
    async def purge(request: Request) -> Response:
        removed = await site.manager.sweeper.purge()
        await audit(site.store, who(request), "purge", removed=removed)
        return Response(encoded({"removed": removed}), media_type="application/json")
