"""Liveness, readiness, metrics, and diagnostics and retention for operators."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from milepost.core.errors import MissingExtraError, StoreError
from milepost.core.serialization import from_micros
from milepost.stores.cycles import cycle_warnings
from milepost.stores.protocol import HealthReport
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import JsonResponse
from milepost.web.http.problems import RETRY_LATER, response
from milepost.web.metrics import Metrics
from milepost.web.schemas.fields import Json, ResponseModel
from milepost.web.security.audit import audit
from milepost.web.security.principals import ADMIN

NUMBERS = {"schema": {"type": "string"}, "example": 'milepost_jobs{job_type="ingestion",status="running"} 3.0\n'}


class Doctor(ResponseModel):
    """The health of the store."""

    store: str
    version: str
    layout: int
    durability: str
    warnings: list[str]
    details: dict[str, str]
    stopping: list[dict[str, Json]]


class Alive(ResponseModel):
    """The process is alive."""

    status: str


class Ready(ResponseModel):
    """The store is reachable. Only admins get its details and, in `warnings`, its problems."""

    status: str
    store: str | None = None
    version: str | None = None
    layout: int | None = None
    durability: str | None = None
    warnings: list[str] | None = None


class Purged(ResponseModel):
    """The number of deleted jobs."""

    removed: int


def add_health(router: APIRouter, context: WebContext) -> None:
    """Add the liveness and readiness checks, which need no key, and the metrics, which require an admin."""
    numbers: list[Metrics] = []

    @router.get("/metrics", dependencies=[context.authenticator.require(ADMIN)], response_class=PlainTextResponse,
                responses={**schemas.problems(501), 200: {"content": {"text/plain": NUMBERS}}}, tags=["operation"], summary="Prometheus metrics")  # fmt: skip
    async def metrics() -> Response:
        if not numbers:
            try:
                numbers.append(Metrics(context))
            except MissingExtraError as missing:
                return response(501, str(missing))
        text, kind = await numbers[0].text()
        return Response(text, media_type=kind)

    @router.get("/healthz", tags=["operation"], summary="Liveness check", response_model=Alive)
    async def healthz() -> Response:
        return JsonResponse({"status": "ok"})

    @router.get(
        "/readyz",
        tags=["operation"],
        summary="Readiness check: the store is reachable; admins also get its version and warnings",
        response_model=Ready,
        responses={503: schemas.problems()[503]},
    )
    async def readyz(request: Request) -> Response:
        try:
            health = await context.store.check_health()
        except StoreError as error:
            return response(503, f"The job store is unavailable: {type(error).__name__}", RETRY_LATER)
        if context.hub.closing:
            return response(503, "The server is shutting down", RETRY_LATER)
        if not await context.authenticator.permits(request, ADMIN):
            return JsonResponse({"status": "ok"})
        return JsonResponse({"status": "ok", **_shown(health)})


def _shown(health: HealthReport) -> dict[str, object]:
    """Return the health of a store as JSON types, without its details."""
    shown = {name: value for name, value in health._asdict().items() if name not in ("kind", "details")}
    return {"store": health.kind, **shown}


def add_admin(router: APIRouter, context: WebContext) -> None:
    """Add the routes for operators."""
    admin = [context.authenticator.require(ADMIN)]

    @router.get("/api/doctor", dependencies=admin, response_model=Doctor, responses=schemas.problems(),
                tags=["operation"], summary="Check the health of the store")  # fmt: skip
    async def doctor() -> Response:
        health = await context.store.check_health()
        stopping = [
            {"job_id": job_id, "expires_at": from_micros(expires).isoformat()}
            for job_id, _, expires in await context.store.draining_leases()
        ]
        body = {
            **_shown(health),
            "warnings": [*health.warnings, *await cycle_warnings(context.store)],
            "details": dict(health.details),
            "stopping": stopping,
            "streams": context.hub.clients,
        }
        return JsonResponse(body)

    @router.post("/api/purge", dependencies=admin, response_model=Purged, responses=schemas.problems(),
                 tags=["operation"], summary="Delete jobs past their retention time now")  # fmt: skip
    async def purge(request: Request) -> Response:
        removed = await context.manager.runtime.sweeper.purge()
        await audit(context.store, principal_of(request), "purge", removed=removed)
        return JsonResponse({"removed": removed})
