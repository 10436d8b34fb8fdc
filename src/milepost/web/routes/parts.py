"""What belongs to one job: its result, its attempts, its log, and an admin's last word on a stop."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from milepost.core.encoding import from_json
from milepost.core.events import Event
from milepost.core.job import JobStatus
from milepost.core.lifecycle import plan_receipt
from milepost.stores.ids import new_op
from milepost.stores.protocol import Write
from milepost.web import models
from milepost.web.audit import audit
from milepost.web.principals import ADMIN, READ
from milepost.web.problems import Problem
from milepost.web.site import Site, who
from milepost.web.wire import encoded

JSON = "application/json"
EVENTS_READ = 1000


def add_parts(router: APIRouter, site: Site) -> None:
    """Add the calls about the parts of a job."""
    read, admin = [site.gate.need(READ)], [site.gate.need(ADMIN)]

    @router.get("/api/jobs/{job_id}/result", dependencies=read, response_model=models.Json,
                responses={**models.problems(404), 200: {"content": {JSON: {"example": {"chunks": 412}}}}}, tags=["jobs"],
                summary="The result alone, as it was stored")  # fmt: skip
    async def get_result(request: Request, job_id: str) -> Response:
        job = await site.visible(request, job_id)
        text = job.record.get("result")
        if text is None or "result" in job.corrupt:
            if job.status is JobStatus.COMPLETED:
                return Response(b"null", media_type=JSON)
            raise Problem(404, f"There is no result: the job is {job.status}", job_status=job.status.value)
        return Response(text.encode("utf-8", "replace"), media_type=JSON)

    @router.get("/api/jobs/{job_id}/attempts", dependencies=read, response_model=models.Attempts,
                responses=models.problems(404), tags=["jobs"], summary="The attempts that failed, oldest first")  # fmt: skip
    async def get_attempts(request: Request, job_id: str) -> Response:
        job = await site.visible(request, job_id)
        try:
            # The record keeps each attempt's failure as a JSON object, joined by commas; of many the newest.
            texts = (job.record.get(name) for name in ("attempts_before", "attempts"))
            failures = from_json(f"[{','.join(text for text in texts if text)}]")
        except ValueError:
            failures = []
        body = {
            "attempts": failures,
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
            "crashes": job.crashes,
        }
        return Response(encoded(body), media_type=JSON)

    @router.get("/api/jobs/{job_id}/logs", dependencies=read, response_model=models.Logs,
                responses=models.problems(404), tags=["jobs"], summary="The log, oldest first, by cursor")  # fmt: skip
    async def get_logs(
        request: Request,
        job_id: str,
        cursor: Annotated[int, Query(ge=0, le=2**53, description="A version: lines of later events")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    ) -> Response:
        await site.visible(request, job_id)
        lines: list[dict[str, object]] = []
        after, more = cursor, True
        while more and len(lines) < limit:
            events = await site.store.events(job_id, after, EVENTS_READ)
            more = len(events) == EVENTS_READ
            for event in events:
                if len(lines) >= limit:
                    more = True
                    break
                after = event.version
                lines += _lines(event)
        return Response(encoded({"lines": lines, "cursor": after, "more": more}), media_type=JSON)

    @router.post("/api/jobs/{job_id}/stop/forget", dependencies=admin, response_model=models.Done,
                 responses=models.problems(404), tags=["operation"],
                 summary="Drop the lease of a run that does not answer its stop")  # fmt: skip
    async def forget_stop(request: Request, job_id: str) -> Response:
        token = next((lease for name, lease, _ in await site.store.stoppings() if name == job_id), None)
        if token is None:
            raise Problem(404, "No run of this job is being stopped")
        plan = plan_receipt(new_op(), token, "forgotten", confirmed=False)
        await site.store.apply([Write(job_id, plan, answer=False)])
        await audit(site.store, who(request), "stop.forget", job_id)
        return Response(encoded({"message": "Stop forgotten", "job_id": job_id}), media_type=JSON)


def _lines(event: Event) -> list[dict[str, object]]:
    lines = event.data.get("lines") if event.kind == "log" else None
    return [{**line, "version": event.version} for line in lines] if isinstance(lines, list) else []
