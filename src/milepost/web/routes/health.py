"""Is the process alive, is the store reachable and fit."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from milepost.core.errors import StoreError
from milepost.web.problems import response
from milepost.web.site import Site
from milepost.web.wire import encoded


def add_health(router: APIRouter, site: Site) -> None:
    """Add the calls that machines ask; they tell nothing of any job and need no key."""

    @router.get("/healthz", tags=["operation"], summary="The process is alive", response_model=dict[str, str])
    async def healthz() -> Response:
        return Response(b'{"status":"ok"}', media_type="application/json")

    @router.get(
        "/readyz", tags=["operation"], summary="The store is reachable and fit", response_model=dict[str, object]
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
