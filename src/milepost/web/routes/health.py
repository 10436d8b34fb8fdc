"""Is the process alive, is the store reachable and fit."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from milepost.core.errors import MissingExtra, StoreError
from milepost.web import models
from milepost.web.metrics import Metrics
from milepost.web.principals import ADMIN
from milepost.web.problems import response
from milepost.web.site import Site
from milepost.web.wire import encoded

NUMBERS = {"schema": {"type": "string"}, "example": 'milepost_jobs{job_type="ingestion",status="running"} 3.0\n'}


def add_health(router: APIRouter, site: Site) -> None:
    """Add the calls that machines ask: two that tell nothing of any job and need no key, and the numbers for an admin."""
    numbers: list[Metrics] = []

    @router.get("/metrics", dependencies=[site.gate.need(ADMIN)], response_class=PlainTextResponse,
                responses={**models.problems(501), 200: {"content": {"text/plain": NUMBERS}}}, tags=["operation"], summary="Numbers for Prometheus")  # fmt: skip
    async def metrics() -> Response:
        if not numbers:
            try:
                numbers.append(Metrics(site))
            except MissingExtra as missing:
                return response(501, str(missing))
        text, kind = await numbers[0].text()
        return Response(text, media_type=kind)

    @router.get("/healthz", tags=["operation"], summary="The process is alive", response_model=models.Alive)
    async def healthz() -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    @router.get(
        "/readyz",
        tags=["operation"],
        summary="The store is reachable and fit",
        response_model=models.Ready,
        responses={503: models.problems()[503]},
    )
    async def readyz() -> Response:
        try:
            fitness = await site.store.examine()
        except StoreError as error:
            return response(503, f"The store cannot be reached: {type(error).__name__}", {"Retry-After": "5"})
        if site.hub.closing:
            return response(503, "The server is shutting down", {"Retry-After": "5"})
        body = {
            "status": "ok",
            "store": fitness.kind,
            "version": fitness.version,
            "layout": fitness.layout,
            "durability": fitness.durability,
            "warnings": list(fitness.warnings),
        }
        return Response(encoded(body), media_type="application/json")
