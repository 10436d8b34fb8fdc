"""Server-sent events of one job and of a list."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from milepost.core import output
from milepost.core.events import PATTERN, StreamPosition
from milepost.core.serialization import known_id
from milepost.manager.output import read_output
from milepost.manager.watch import is_same
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import JsonResponse
from milepost.web.http.list_params import AskedList
from milepost.web.http.problems import Problem, not_found
from milepost.web.live.job_stream import JobStream, OutputStream
from milepost.web.live.list_stream import open_list_stream
from milepost.web.security.principals import READ

WATCH = Path(__file__).parents[1] / "milepost-watch.js"
SSE = {
    "text/event-stream": {"schema": {"type": "string"}, "example": "id: 2-h80fcu8mzk\nevent: running\ndata: {...}\n\n"}
}
AFTER = (
    "Resume after this message: its `id`, as in `Last-Event-ID`. The id includes the job's creation time, so the stream of a "
    "recreated job begins with a snapshot. A version alone (`2`) refers to the job that has the id now."
)
AFTER_CHUNK = "Resume after this chunk: its `position`, which is its `id` in a stream, as in `Last-Event-ID`."
OUTPUT = {
    "text/event-stream": {
        "schema": {"type": "string"},
        "example": 'id: 1764000000000000.0.5\nevent: output\ndata: {"text": "Paris", ...}\n\n',
    }
}
JOBS = "`false` leaves the jobs out of the snapshot, for a client that reads the list with another request"


def add_streams(router: APIRouter, context: WebContext) -> None:
    """Add the streaming routes."""
    read = [context.authenticator.require(READ, link=True)]

    @router.get(
        "/api/jobs/{job_id}/events",
        dependencies=read,
        response_model=list[schemas.EventRecord],
        responses={
            **schemas.problems(404),
            200: {"description": "An event stream, or a JSON list with `Accept: application/json`", "content": SSE},
            204: {"description": "The job has ended and the client has seen all events"},
        },
        tags=["streams"],
        summary="Stream the events of a job, from a snapshot or from a position",
    )
    async def job_events(
        request: Request,
        job_id: str,
        after: Annotated[str | None, Query(pattern=PATTERN, description=AFTER)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    ) -> Response:
        last = request.headers.get("last-event-id", "")
        if wants_json(request):
            job = await context.visible_job(request, job_id)
            seen = StreamPosition.read(after).seen_of(job) if after is not None else None
            events = await context.store.events(job_id, seen or 0, limit)
            return JsonResponse([event.to_dict() for event in events])
        again = bool(last) or after is not None
        text = last if re.fullmatch(PATTERN, last) else after
        position = StreamPosition.read(text) if text is not None else None
        allowed = context.authenticator.revalidator(request, READ)
        return await JobStream.start(
            context.hub, known_id(job_id), position, reconnect=again, principal=principal_of(request), allowed=allowed
        )

    @router.get(
        "/api/jobs/{job_id}/output",
        dependencies=read,
        response_model=list[schemas.OutputRecord],
        responses={
            **schemas.problems(404),
            200: {"description": "An event stream, or a JSON list with `Accept: application/json`", "content": OUTPUT},
            204: {"description": "The job has ended and the client has read all output"},
        },
        tags=["streams"],
        summary="Stream the output of a job, from its beginning or from a position",
    )
    async def job_output(
        request: Request,
        job_id: str,
        after: Annotated[str | None, Query(pattern=output.PATTERN, description=AFTER_CHUNK)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    ) -> Response:
        last = request.headers.get("last-event-id", "")
        text = last if re.fullmatch(output.PATTERN, last) else after
        position = output.OutputPosition.parse(text)
        if wants_json(request):
            job = await context.visible_job(request, job_id)
            chunks = await read_output(context.store, job_id, position, limit)
            if chunks and not is_same(await context.store.get(job_id), job):
                raise not_found()  # the chunks may be those of another job with the same id
            return JsonResponse([chunk.to_dict() for chunk in chunks])
        return await OutputStream.start(
            context.hub,
            known_id(job_id),
            position,
            reconnect=text is not None,
            principal=principal_of(request),
            allowed=context.authenticator.revalidator(request, READ),
        )

    @router.get("/api/milepost-watch.js", response_class=Response, tags=["streams"],
                summary="Get an ES module that shows a job live on your own page")  # fmt: skip
    async def watch_module() -> Response:
        headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
        # Not a FileResponse, as for the files of the dashboard.
        return Response(WATCH.read_bytes(), media_type="text/javascript", headers=headers)

    @router.get(
        "/api/events",
        dependencies=read,
        response_class=Response,
        responses={**schemas.problems(), 200: {"description": "An event stream", "content": SSE}},
        tags=["streams"],
        summary="Stream the changes of a job list: a snapshot, then batches",
    )
    async def list_events(
        request: Request,
        wanted: AskedList,
        after: Annotated[str | None, Query(max_length=64)] = None,
        ids: Annotated[list[str], Query(max_length=500, description="Only these jobs, all on one connection")] = [],  # noqa: B006
        jobs: Annotated[bool, Query(description=JOBS)] = True,
    ) -> Response:
        wanted = replace(wanted, ids=tuple(dict.fromkeys(ids)))
        last = request.headers.get("last-event-id") or after
        return await open_list_stream(
            context.hub,
            wanted,
            principal_of(request),
            last,
            with_jobs=jobs,
            allowed=context.authenticator.revalidator(request, READ),
        )


def wants_json(request: Request) -> bool:
    """Return whether a client accepts JSON rather than an event stream. Raises Problem 406 for neither."""
    accept = request.headers.get("accept", "*/*").lower()
    if "text/event-stream" in accept:
        return False
    if "application/json" in accept:
        return True
    if "*/*" in accept or "text/*" in accept or not accept:
        return False
    if "application/*" in accept:
        return True
    raise Problem(406, "Not acceptable: use text/event-stream or application/json")
