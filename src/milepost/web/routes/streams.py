"""The live calls: the events of one job, and the changes of a list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse, Response

from milepost.web import models
from milepost.web.job_streams import open_stream
from milepost.web.list_streams import open_list_stream
from milepost.web.listing import Wanted
from milepost.web.principals import READ
from milepost.web.problems import Problem, missing
from milepost.web.site import Site, who
from milepost.web.wire import encoded

WATCH = Path(__file__).parents[1] / "milepost-watch.js"
SSE = {"text/event-stream": {"schema": {"type": "string"}, "example": "id: 2\nevent: running\ndata: {...}\n\n"}}
TEXTS = Annotated[list[str], Query(max_length=50)]


def add_streams(router: APIRouter, site: Site) -> None:
    """Add the calls that stream."""
    read = [site.gate.need(READ)]

    @router.get(
        "/api/jobs/{job_id}/events",
        dependencies=read,
        response_model=list[models.EventShape],
        responses={
            **models.problems(404),
            200: {"description": "A live stream; a JSON list when asked for JSON", "content": SSE},
            204: {"description": "A reconnect after the job's last word: nothing will follow"},
        },
        tags=["streams"],
        summary="Every event of a job, live, from a snapshot or from where the client was",
    )
    async def job_events(
        request: Request,
        job_id: str,
        after: Annotated[int | None, Query(ge=0, le=2**53)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    ) -> Response:
        last = request.headers.get("last-event-id", "")
        job = await site.manager.get_job(job_id)
        if job is None or not who(request).sees(job):
            raise missing()
        if wants_json(request):
            events = await site.store.events(job_id, after or 0, limit)
            return Response(encoded([event.to_dict() for event in events]), media_type="application/json")
        seen = int(last) if last.isascii() and last.isdigit() and len(last) < 18 else after
        again = bool(last) or after is not None
        allowed = site.gate.watch(request, READ)
        return await open_stream(site.hub, site.store, job, seen, reconnect=again, allowed=allowed)

    @router.get("/api/milepost-watch.js", response_class=FileResponse, tags=["streams"],
                summary="A small ES module that shows one job live on a page of yours")  # fmt: skip
    async def watch_module() -> Response:
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        return FileResponse(WATCH, media_type="text/javascript", headers=headers)

    @router.get(
        "/api/events",
        dependencies=read,
        response_class=Response,
        responses={**models.problems(), 200: {"description": "A live stream of a list", "content": SSE}},
        tags=["streams"],
        summary="The changes of a list, live: a snapshot, then batches",
    )
    async def list_events(
        request: Request,
        job_type: TEXTS = [],  # noqa: B006 - FastAPI copies it
        status: TEXTS = [],  # noqa: B006
        q: Annotated[str, Query(max_length=2000)] = "",
        label: TEXTS = [],  # noqa: B006
        created_after: models.When | None = None,
        created_before: models.When | None = None,
        after: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        wanted = Wanted(q, tuple(job_type), tuple(status), tuple(label), created_after, created_before)
        last = request.headers.get("last-event-id") or after
        return await open_list_stream(
            site.hub, site.store, wanted, who(request), last, allowed=site.gate.watch(request, READ)
        )


def wants_json(request: Request) -> bool:
    """Whether a client asks for JSON rather than for a stream. Raises Problem 406 for neither."""
    accept = request.headers.get("accept", "*/*").lower()
    if "text/event-stream" in accept:
        return False
    if "application/json" in accept:
        return True
    if "*/*" in accept or "text/*" in accept or not accept:
        return False
    if "application/*" in accept:
        return True
    raise Problem(406, "There is text/event-stream and application/json")
