"""The original's four calls, and what a single job is asked besides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from milepost.core.defaults import LIST_LIMIT, LIST_LIMIT_MAX
from milepost.core.errors import IllegalTransition
from milepost.core.job import Job, JobStatus
from milepost.stores.query import Page
from milepost.web import models
from milepost.web.listing import Wanted
from milepost.web.principals import CANCEL, DELETE, READ, WRITE
from milepost.web.problems import Problem, missing
from milepost.web.site import Site, place_of, who
from milepost.web.waiting import preferred_wait, wait_until
from milepost.web.wire import encoded, job_bytes

T = TypeVar("T")
JSON = "application/json"
TEXTS = Annotated[list[str], Query(max_length=50)]


def add_jobs(router: APIRouter, site: Site) -> None:
    """Add the calls about jobs."""
    read, write = [site.gate.need(READ)], [site.gate.need(WRITE)]
    cancel, delete = [site.gate.need(CANCEL)], [site.gate.need(DELETE)]

    # First, because routes are tried in their order and this one is asked for most.
    async def answer_job(request: Request, job_id: str) -> Response:
        job = await site.store.get(job_id)
        if job is None or not who(request).sees(job):
            raise missing()
        tag = f'W/"v{job.version}"'
        known = request.headers.get("if-none-match")
        if known is not None and tag in known:
            seconds, version = preferred_wait(request), job.version
            if seconds:
                latest = await wait_until(site, job, lambda now: now.version != version, seconds)
                if latest is None:
                    raise missing()
                job, tag = latest, f'W/"v{latest.version}"'
            if job.version == version:
                return Response(status_code=304, headers={"ETag": tag, "Cache-Control": "no-store"})
        if job.status is JobStatus.PENDING:
            job = await site.expected.tell(job)
        return Response(job_bytes(job), 200, {"ETag": tag, "Cache-Control": "no-store"}, JSON)

    @router.get(
        "/api/jobs/{job_id}",
        dependencies=read,
        response_model=models.JobRecord,
        responses={**models.problems(404), 304: {"description": "Not changed since `If-None-Match`"}},
        tags=["jobs"],
        summary="One job; with `If-None-Match` and `Prefer: wait=n` a long poll",
    )
    @answered_directly(site, answer_job)
    async def get_job(request: Request, job_id: str) -> Response:
        return await answer_job(request, job_id)

    @router.get(
        "/api/jobs",
        dependencies=read,
        response_model=models.JobList,
        responses=models.problems(),
        tags=["jobs"],
        summary="List jobs, newest first",
    )
    async def list_jobs(
        request: Request,
        job_type: TEXTS = [],  # noqa: B006 - FastAPI copies it
        status: TEXTS = [],  # noqa: B006
        limit: Annotated[int, Query(ge=1)] = LIST_LIMIT,
        q: Annotated[str, Query(max_length=2000, description="A filter, such as `status:failed created:1d`")] = "",
        label: TEXTS = [],  # noqa: B006
        created_after: models.When | None = None,
        created_before: models.When | None = None,
        cursor: Annotated[str | None, Query(max_length=400)] = None,
    ) -> Response:
        wanted = Wanted(q, tuple(job_type), tuple(status), tuple(label), created_after, created_before)
        found = wanted.filter()
        page = await site.manager.find(who(request).within(found.query), min(limit, LIST_LIMIT_MAX), cursor or None)
        headers = {"Cache-Control": "no-store"}
        if page.next_cursor is not None:
            # Relative to the request, so that a prefix that a proxy has stripped does not matter.
            following = request.url.include_query_params(cursor=page.next_cursor)
            headers["Link"] = f'<?{following.query}>; rel="next"'
        return Response(list_bytes(page, found.reads), 200, headers, JSON)

    @router.post(
        "/api/jobs/{job_id}/cancel",
        dependencies=cancel,
        response_model=models.Done,
        responses=models.problems(400, 404),
        tags=["jobs"],
        summary="Cancel a job: final when this is answered",
    )
    async def cancel_job(request: Request, job_id: str, body: models.CancelBody | None = None) -> Response:
        await site.visible(request, job_id)
        try:
            await site.manager.cancel_job(job_id, body.reason if body is not None else None, by=who(request).id)
        except IllegalTransition as refused:
            status = refused.job.status.value if refused.job is not None else None
            raise Problem(400, str(refused), job_status=status, error="IllegalTransition") from None
        return Response(encoded({"message": "Job cancelled", "job_id": job_id}), media_type=JSON)

    @router.patch(
        "/api/jobs/{job_id}",
        dependencies=write,
        response_model=models.JobRecord,
        responses=models.problems(404, 409),
        tags=["jobs"],
        summary="Write the status and progress of a job that its caller drives",
    )
    async def update_job(request: Request, job_id: str, body: models.UpdateBody) -> Response:
        await site.visible(request, job_id)
        values = body.model_dump(exclude_unset=True)
        await site.manager.update_job(job_id, **values)
        job = await site.visible(request, job_id)
        return Response(job_bytes(job), media_type=JSON)

    @router.delete(
        "/api/jobs/{job_id}",
        dependencies=delete,
        response_model=models.Done,
        responses=models.problems(),
        tags=["jobs"],
        summary="Delete a job; a running one is cancelled first",
    )
    async def delete_job(request: Request, job_id: str) -> Response:
        principal = who(request)
        job = await site.manager.get_job(job_id) if principal.bound else None
        if not principal.bound or (job is not None and principal.sees(job)):
            await site.manager.delete_job(job_id)
        return Response(encoded({"message": "Job deleted", "job_id": job_id}), media_type=JSON)

    @router.post(
        "/api/jobs/{job_id}/retry",
        dependencies=write,
        response_model=models.JobRecord,
        responses={**models.problems(404, 409), 201: {"model": models.JobRecord, "description": "A new job"}},
        tags=["jobs"],
        summary="Send a failed or cancelled job back to the workers",
    )
    async def retry_job(request: Request, job_id: str, body: models.RetryBody | None = None) -> Response:
        await site.visible(request, job_id)
        only_failed = body is not None and body.only_failed
        job = await site.manager.retry_job(job_id, only_failed=only_failed)
        return created(request, job) if only_failed else Response(job_bytes(job), media_type=JSON)


def answered_directly(site: Site, answer: Callable[[Request, str], Awaitable[Response]]) -> Callable[[T], T]:
    """Let an endpoint of one id be answered past FastAPI's resolving, behind our own gate where that knows who asks.

    To stand below what makes the route, which looks for it.
    """

    async def direct(request: Request) -> Response:
        await site.gate.enter(request, READ)
        return await answer(request, request.path_params["job_id"])

    def mark(endpoint: T) -> T:
        if hasattr(site.gate.auth, "principal"):
            vars(endpoint)["direct"] = direct
        return endpoint

    return mark


def created(request: Request, job: Job, status: int = 201) -> Response:
    """The answer for a job that was made."""
    headers = {"Location": place_of(request, job.job_id), "ETag": f'W/"v{job.version}"', "Retry-After": "1"}
    return Response(job_bytes(job), status, headers, JSON)


def list_bytes(page: Page, reads: tuple[str, ...]) -> bytes:
    """A page as JSON: the original's two names first, and what else there is to say only when there is."""
    jobs = b",".join(map(job_bytes, page.jobs))
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
