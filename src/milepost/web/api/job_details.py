"""The result, attempts and log of a job, and giving up on a run that does not stop."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from milepost.core.codecs import jsonable
from milepost.core.events import Event
from milepost.core.job import JobStatus
from milepost.core.serialization import from_json
from milepost.core.transitions import plan_receipt
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import encoded
from milepost.web.http.problems import Problem
from milepost.web.security.audit import audit
from milepost.web.security.principals import ADMIN, READ

JSON = "application/json"
EVENTS_PER_READ = 1000


def add_job_details(router: APIRouter, context: WebContext) -> None:
    """Add the routes for details of a job."""
    read, admin = [context.authenticator.require(READ, link=True)], [context.authenticator.require(ADMIN)]

    @router.get("/api/jobs/{job_id}/result", dependencies=read, response_model=schemas.Json,
                responses={**schemas.problems(404), 200: {"content": {JSON: {"example": {"chunks": 412}}}}}, tags=["jobs"],
                summary="Get the result of a job")  # fmt: skip
    async def get_result(request: Request, job_id: str) -> Response:
        job = await context.visible_job(request, job_id)
        text = job.record.get("result")
        if text is None or "result" in job.corrupt:
            if job.status is JobStatus.COMPLETED:
                return Response(b"null", media_type=JSON)
            raise Problem(404, f"The job has no result; its status is {job.status}", job_status=job.status.value)
        return Response(text.encode("utf-8", "replace"), media_type=JSON)

    @router.get("/api/jobs/{job_id}/attempts", dependencies=read, response_model=schemas.Attempts,
                responses=schemas.problems(404), tags=["jobs"], summary="List the failed attempts, oldest first")  # fmt: skip
    async def get_attempts(request: Request, job_id: str) -> Response:
        job = await context.visible_job(request, job_id)
        try:
            # The record has the failures as JSON objects joined by commas, only the newest if there are many.
            texts = (job.record.get(name) for name in ("failures_before", "failures"))
            failures = from_json(f"[{','.join(text for text in texts if text)}]")
        except ValueError:
            failures = []
        body = {
            "attempts": failures,
            "runs": jsonable(job.attempts),
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
            "crashes": job.crashes,
        }
        return Response(encoded(body), media_type=JSON)

    @router.get("/api/jobs/{job_id}/logs", dependencies=read, response_model=schemas.Logs,
                responses=schemas.problems(404), tags=["jobs"], summary="List log lines, oldest first")  # fmt: skip
    async def get_logs(
        request: Request,
        job_id: str,
        cursor: Annotated[int, Query(ge=0, le=2**53, description="Return only lines of events after this version")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    ) -> Response:
        await context.visible_job(request, job_id)
        lines: list[dict[str, object]] = []
        after, more = cursor, True
        while more and len(lines) < limit:
            events = await context.store.events(job_id, after, EVENTS_PER_READ)
            more = len(events) == EVENTS_PER_READ
            for event in events:
                if len(lines) >= limit:
                    more = True
                    break
                after = event.version
                lines += _lines(event)
        return Response(encoded({"lines": lines, "cursor": after, "more": more}), media_type=JSON)

    @router.post("/api/jobs/{job_id}/stop/forget", dependencies=admin, response_model=schemas.Done,
                 responses=schemas.problems(404), tags=["operation"],
                 summary="Release the lease of a run that does not confirm its stop")  # fmt: skip
    async def forget_stop(request: Request, job_id: str) -> Response:
        token = next((lease for name, lease, _ in await context.store.draining_leases() if name == job_id), None)
        if token is None:
            raise Problem(404, "The job has no run that is being stopped")
        plan = plan_receipt(new_operation_id(), token, "dropped_by_admin", confirmed=False)
        await context.store.apply([Write(job_id, plan, answer=False)])
        await audit(context.store, principal_of(request), "stop.forget", job_id)
        return Response(encoded({"message": "Stop forgotten", "job_id": job_id}), media_type=JSON)


def _lines(event: Event) -> list[dict[str, object]]:
    lines = event.data.get("lines") if event.kind == "log" else None
    return [{**line, "version": event.version} for line in lines] if isinstance(lines, list) else []
