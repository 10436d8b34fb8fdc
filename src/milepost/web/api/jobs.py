"""Read, list, cancel, update, delete and retry jobs; results, attempts and logs; give up on a run that does not stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from milepost.core.codecs import failure_rows, jsonable
from milepost.core.defaults import LIST_LIMIT, LIST_LIMIT_MAX
from milepost.core.errors import IllegalTransitionError, InvalidInputError
from milepost.core.events import Event
from milepost.core.job import Job, JobStatus
from milepost.core.transitions import plan_receipt
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.stores.query import Page
from milepost.web import schemas
from milepost.web.api.submit import refuse_published, seen_bytes
from milepost.web.context import WebContext, job_url, principal_of
from milepost.web.http.json_body import JsonResponse, encoded, row_bytes
from milepost.web.http.list_params import AskedList
from milepost.web.http.problems import RETRY_SOON, Problem, not_found
from milepost.web.live.job_stream import preferred_wait, wait_until
from milepost.web.schemas.fields import ResponseModel
from milepost.web.security.audit import audit
from milepost.web.security.principals import ADMIN, ANSWER, CANCEL, DELETE, READ, WRITE

T = TypeVar("T")


class RetryCheck(ResponseModel):
    """What keeps a retry of a job from succeeding; `reason` is null if nothing is known to.

    It is `status`, `run_by`, `parent` or `unique_key` if a retry is refused, and `budget` if it fails at its start. `text`
    explains it. `other` is the id of the parent, of the newer job with the unique key, or of the job with the budget.
    """

    reason: Literal["status", "run_by", "parent", "unique_key", "budget"] | None
    text: str
    other: str | None


def add_jobs(router: APIRouter, context: WebContext) -> None:
    """Add the routes for single jobs and the job list."""
    read, write = [context.authenticator.require(READ, link=True)], [context.authenticator.require(WRITE)]
    cancel, delete = [context.authenticator.require(CANCEL, link=True)], [context.authenticator.require(DELETE)]

    # First, because routes are matched in order and this one is requested most.
    async def answer_job(request: Request, job_id: str) -> Response:
        job = await context.manager.get_job(job_id)
        if job is None or not principal_of(request).sees(job):
            raise not_found()
        tag = f'W/"v{job.version}"'
        known = request.headers.get("if-none-match")
        if known is not None and tag in known:
            seconds, version = preferred_wait(request), job.version
            if seconds:
                latest = await wait_until(
                    context.hub, job, lambda now: now.version != version, seconds, principal_of(request)
                )
                if latest is None:
                    raise not_found()
                job, tag = latest, f'W/"v{latest.version}"'
            if job.version == version:
                return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "no-store"})
        (job,) = await context.expected.describe([job])
        return JsonResponse(job.to_json(), 200, {"ETag": tag, "Cache-Control": "no-store"})

    async def changed(request: Request, job_id: str, change: Callable[..., Awaitable[Job]], *values: Any) -> Response:
        """Return the job after a change in the name of the caller."""
        await context.visible_job(request, job_id)
        principal = principal_of(request)
        job = await change(job_id, *values, by=principal.id)
        return JsonResponse(seen_bytes(principal, job))

    @router.get(
        "/api/jobs/{job_id}",
        dependencies=read,
        response_model=schemas.JobRecord,
        responses={**schemas.problems(404), 304: {"description": "Not modified since the version in `If-None-Match`"}},
        tags=["jobs"],
        summary="Get a job; a long poll with `If-None-Match` and `Prefer: wait=n`",
    )
    @answered_directly(context, answer_job)
    async def get_job(request: Request, job_id: str) -> Response:
        return await answer_job(request, job_id)

    @router.get(
        "/api/jobs",
        dependencies=read,
        response_model=schemas.JobList,
        responses=schemas.problems(),
        tags=["jobs"],
        summary="List jobs, newest first",
    )
    async def list_jobs(
        request: Request,
        wanted: AskedList,
        limit: Annotated[int, Query(ge=1)] = LIST_LIMIT,
        cursor: Annotated[str | None, Query(max_length=400)] = None,
        fields: Annotated[Literal["all", "row"], Query(include_in_schema=False)] = "all",  # rows are the dashboard's
    ) -> Response:
        found = wanted.filter()
        page = await context.find(principal_of(request), found.query, min(limit, LIST_LIMIT_MAX), cursor or None)
        headers = {"Cache-Control": "no-store"}
        if page.next_cursor is not None:
            # Relative to the request, because a proxy may strip a prefix of the path.
            following = request.url.include_query_params(cursor=page.next_cursor)
            headers["Link"] = f'<?{following.query}>; rel="next"'
        page = replace(page, jobs=await context.expected.describe(page.jobs))
        return JsonResponse(list_bytes(page, found.reads, row_bytes if fields == "row" else Job.to_json), 200, headers)

    @router.post(
        "/api/jobs/{job_id}/cancel",
        dependencies=cancel,
        response_model=schemas.Done,
        responses=schemas.problems(400, 404),
        tags=["jobs"],
        summary="Cancel a job; takes effect immediately",
    )
    async def cancel_job(request: Request, job_id: str, body: schemas.CancelBody | None = None) -> Response:
        principal = principal_of(request)
        if principal.bound:
            await context.visible_job(request, job_id)
        try:
            await context.manager.cancel_job(job_id, body.reason if body is not None else None, by=principal.id)
        except IllegalTransitionError as refused:
            status = refused.job.status.value if refused.job is not None else None
            raise Problem(400, str(refused), job_status=status, error="IllegalTransitionError") from None
        return JsonResponse({"message": "Job cancelled", "job_id": job_id})

    @router.post(
        "/api/jobs/{job_id}/answers",
        dependencies=[context.authenticator.require(ANSWER)],
        response_model=schemas.JobRecord,
        responses=schemas.problems(404, 409),
        tags=["jobs"],
        summary="Answer a question of a job, or keep the answer until it is asked",
    )
    async def answer_question(request: Request, job_id: str, body: schemas.AnswerBody) -> Response:
        return await changed(request, job_id, context.manager.answer, body.key, body.value)

    @router.post(
        "/api/jobs/{job_id}/pause",
        dependencies=write,
        response_model=schemas.JobRecord,
        responses=schemas.problems(404, 409),
        tags=["jobs"],
        summary="Suspend a job until it is resumed",
    )
    async def pause_job(request: Request, job_id: str) -> Response:
        return await changed(request, job_id, context.manager.pause)

    @router.post(
        "/api/jobs/{job_id}/resume",
        dependencies=write,
        response_model=schemas.JobRecord,
        responses=schemas.problems(404, 409),
        tags=["jobs"],
        summary="Let a paused job continue",
    )
    async def resume_job(request: Request, job_id: str) -> Response:
        return await changed(request, job_id, context.manager.resume)

    @router.patch(
        "/api/jobs/{job_id}",
        dependencies=write,
        response_model=schemas.JobRecord,
        responses=schemas.problems(404, 409),
        tags=["jobs"],
        summary="Update the status and progress of a job that is run by its caller",
    )
    async def update_job(request: Request, job_id: str, body: schemas.UpdateBody) -> Response:
        job = await context.visible_job(request, job_id)
        if job.origin == "local" and job.run_by == "manual" and not principal_of(request).unlimited:
            await refuse_published(context, job.job_type)
        values = body.model_dump(exclude_unset=True)
        await context.manager.update_job(job_id, **values)
        job = await context.visible_job(request, job_id)
        return JsonResponse(seen_bytes(principal_of(request), job))

    @router.delete(
        "/api/jobs/{job_id}",
        dependencies=delete,
        response_model=schemas.Done,
        responses=schemas.problems(),
        tags=["jobs"],
        summary="Delete a job; a running job is cancelled first",
    )
    async def delete_job(request: Request, job_id: str) -> Response:
        principal = principal_of(request)
        job = await context.manager.get_job(job_id) if principal.bound else None
        if not principal.bound or (job is not None and principal.sees(job)):
            await context.manager.delete_job(job_id)
        return JsonResponse({"message": "Job deleted", "job_id": job_id})

    @router.post(
        "/api/jobs/{job_id}/retry",
        dependencies=write,
        response_model=schemas.JobRecord,
        responses={
            **schemas.problems(404, 409),
            201: {"model": schemas.JobRecord, "description": "A new job with the failed items"},
        },
        tags=["jobs"],
        summary="Retry a failed or cancelled job",
    )
    async def retry_job(request: Request, job_id: str, body: schemas.RetryBody | None = None) -> Response:
        principal, old = principal_of(request), await context.visible_job(request, job_id)
        await context.may_start(principal, old.job_type, old.run_by, old.queue, old.origin)
        await context.quotas.before_submit(principal)
        asked = body if body is not None else schemas.RetryBody(only_failed=False, from_start=False, dependents=False)
        only_failed = asked.only_failed
        if asked.dependents and (principal.bound or principal.types or principal.queues):
            raise InvalidInputError("dependents", "needs a key without labels, types and queues; retry each of them")
        job = await context.manager.retry_job(
            job_id, only_failed=only_failed, from_start=asked.from_start, dependents=asked.dependents
        )
        context.quotas.submitted(principal, job.job_id)
        seen = seen_bytes(principal, job)
        return created(request, job, seen) if only_failed else JsonResponse(seen)

    @router.get("/api/jobs/{job_id}/retry-check", dependencies=[context.authenticator.require(READ)], response_model=RetryCheck,
                responses=schemas.problems(404), tags=["jobs"],
                summary="Get what keeps a retry of a job from succeeding")  # fmt: skip
    async def retry_check(request: Request, job_id: str) -> Response:
        await context.visible_job(request, job_id)
        found = await context.manager.retry_check(job_id)
        other = await context.manager.get_job(found.other) if found.other is not None else None
        if other is None or not principal_of(request).sees(other):
            hidden = f"A retry of job {job_id} fails at its start: the budget of a job above it is spent"
            found = replace(found, other=None, text=hidden if found.reason == "budget" else found.text)
        return JsonResponse(found.to_dict())


def answered_directly(context: WebContext, answer: Callable[[Request, str], Awaitable[Response]]) -> Callable[[T], T]:
    """Bypass FastAPI's parameter resolution for a hot endpoint, if the authentication needs no dependency.

    Apply it below the route decorator, which looks for the mark. A router that the application included itself may have
    got dependencies there, so its requests are not answered directly.
    """

    async def direct(request: Request) -> Response | None:
        if context.app is None or request.app is not context.app or context.app.router.dependencies:
            return None
        await context.authenticator.enter(request, READ, link=True)
        return await answer(request, request.path_params["job_id"])

    def mark(endpoint: T) -> T:
        if hasattr(context.authenticator.auth, "principal"):
            vars(endpoint)["direct"] = direct
        return endpoint

    return mark


def created(request: Request, job: Job, seen: bytes) -> Response:
    """Return the 201 response for a new job."""
    headers = {"Location": job_url(request, job.job_id), "ETag": f'W/"v{job.version}"', **RETRY_SOON}
    return JsonResponse(seen, 201, headers)


def list_bytes(page: Page, reads: tuple[str, ...], write: Callable[[Job], bytes] = Job.to_json) -> bytes:
    """Return a page as JSON. Optional members are included only if they say something."""
    jobs = b",".join(map(write, page.jobs))
    more = b""
    if page.total is None:
        more += b',"total_at_least":%d' % page.total_at_least
    if page.next_cursor is not None:
        more += b',"next_cursor":%s' % encoded(page.next_cursor)
    if not page.scanned_all:
        more += b',"scanned_all":false'
    if reads:
        more += b',"reads":%s' % encoded(list(reads))
    return b'{"jobs":[%s],"total":%s%s}' % (jobs, encoded(page.total), more)


EVENTS_PER_READ = 1000


def add_job_details(router: APIRouter, context: WebContext) -> None:
    """Add the routes for details of a job."""
    read, admin = [context.authenticator.require(READ, link=True)], [context.authenticator.require(ADMIN)]

    @router.get("/api/jobs/{job_id}/result", dependencies=read, response_model=schemas.Json,
                responses={**schemas.problems(404), 200: {"content": {"application/json": {"example": {"chunks": 412}}}}}, tags=["jobs"],
                summary="Get the result of a job")  # fmt: skip
    async def get_result(request: Request, job_id: str) -> Response:
        job = await context.visible_job(request, job_id)
        text = job.record.get("result")
        if text is None or "result" in job.corrupt:
            if job.status is JobStatus.COMPLETED:
                return JsonResponse(None)
            raise Problem(404, f"The job has no result; its status is {job.status}", job_status=job.status.value)
        return JsonResponse(text.encode("utf-8", "replace"))

    @router.get("/api/jobs/{job_id}/attempts", dependencies=read, response_model=schemas.Attempts,
                responses=schemas.problems(404), tags=["jobs"], summary="List the failed attempts, oldest first")  # fmt: skip
    async def get_attempts(request: Request, job_id: str) -> Response:
        job = await context.visible_job(request, job_id)
        body = {
            "attempts": failure_rows(job.record),
            "runs": jsonable(job.attempts),
            "attempt": job.attempt,
            "max_attempts": job.max_attempts,
            "crashes": job.crashes,
        }
        return JsonResponse(body)

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
        return JsonResponse({"lines": lines, "cursor": after, "more": more})

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
        return JsonResponse({"message": "Stop forgotten", "job_id": job_id})


def _lines(event: Event) -> list[dict[str, object]]:
    lines = event.data.get("lines") if event.kind == "log" else None
    return [{**line, "version": event.version} for line in lines] if isinstance(lines, list) else []
