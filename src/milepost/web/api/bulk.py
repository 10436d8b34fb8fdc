"""Cancel, retry or delete many jobs, selected by ids or by a filter."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from milepost.core.errors import IllegalTransitionError, OutcomeUnknownError, StoreError, UnknownJobTypeError
from milepost.core.job import Job, JobStatus
from milepost.core.placement import is_batch
from milepost.core.serialization import single_line
from milepost.core.transitions import plan_cancel, plan_delete, plan_retry
from milepost.core.transitions.change import Change
from milepost.manager import descendants
from milepost.manager.validation import rejection_error
from milepost.query.filters import parse_filter
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write, WriteResult
from milepost.stores.query import SCAN_MAX, Query
from milepost.web import schemas
from milepost.web.context import WebContext, principal_of
from milepost.web.http.json_body import JsonResponse
from milepost.web.http.problems import Problem
from milepost.web.security.principals import CANCEL, DELETE, READ, WRITE, Principal

SCOPE = {"cancel": CANCEL, "retry": WRITE, "delete": DELETE}
BATCH_SIZE = 200
PAGE = 1000


def add_bulk(router: APIRouter, context: WebContext) -> None:
    """Add the route for bulk actions."""

    @router.post("/api/jobs/bulk", dependencies=[context.authenticator.require(None)], response_model=schemas.BulkDone,
                 responses=schemas.problems(), tags=["jobs"],
                 summary="Cancel, retry or delete up to 1,000 jobs per request; with `dry_run` only count them")  # fmt: skip
    async def bulk(request: Request, body: schemas.BulkBody) -> Response:
        principal = principal_of(request)
        if not principal.may(SCOPE[body.action]):
            raise Problem(403, f"This request requires the scope {SCOPE[body.action]}", scope=SCOPE[body.action])
        if (body.ids is None) == (body.q is None):
            raise Problem(422, "Exactly one of ids and q is required; an empty q selects all jobs")
        if body.q is not None and not principal.may(READ):
            raise Problem(
                403,
                f"q requires the scope {READ}, because a filter reveals the content of jobs; pass ids instead",
                scope=READ,
            )
        if body.dry_run:
            return JsonResponse(await _count(context, body, principal))
        jobs, cursor = await _chosen(context, body, principal)
        known = {job.job_id for job in jobs}
        absent = [job_id for job_id in body.ids or () if job_id not in known]
        outcomes = await _act(context, body, jobs, principal)
        outcomes += [{"job_id": job_id, "outcome": "missing", "detail": "Job not found"} for job_id in absent]
        done = sum(one["outcome"] == "done" for one in outcomes)
        answer = {"action": body.action, "done": done, "outcomes": outcomes, "next_cursor": cursor}
        return JsonResponse(answer)


def _query(body: schemas.BulkBody, principal: Principal) -> Query:
    return principal.within(parse_filter(body.q or "").query)


def applies(action: str, job: Job) -> bool:
    """Return whether an action can change a job in its current status."""
    if action == "cancel":
        return not job.is_terminal
    if action == "retry":
        return job.status in (JobStatus.FAILED, JobStatus.CANCELLED) and job.run_by in ("worker", "external")
    return True


async def _count(context: WebContext, body: schemas.BulkBody, principal: Principal) -> dict[str, object]:
    """Return how many jobs match, and how many of them the action would change."""
    matching = eligible = 0
    exact = True
    if body.ids is not None:
        jobs, _ = await _chosen(context, body, principal)
        matching, eligible = len(jobs), sum(applies(body.action, job) for job in jobs)
    else:
        cursor: str | None = None
        while True:
            page = await context.manager.find(_query(body, principal), PAGE, cursor)
            matching += len(page.jobs)
            eligible += sum(applies(body.action, job) for job in page.jobs)
            cursor = page.next_cursor
            if cursor is None or matching >= SCAN_MAX or not page.scanned_all:
                exact = cursor is None
                break
    return {"action": body.action, "dry_run": True, "matching": matching, "eligible": eligible, "exact": exact}


async def _chosen(context: WebContext, body: schemas.BulkBody, principal: Principal) -> tuple[list[Job], str | None]:
    if body.ids is None:
        page = await context.manager.find(_query(body, principal), body.limit, body.cursor)
        return page.jobs, page.next_cursor
    found = [await context.manager.get_job(job_id) for job_id in dict.fromkeys(body.ids)]
    return [job for job in found if job is not None and principal.sees(job)], None


def _plan(action: str, principal: Principal) -> Change:
    if action == "cancel":
        return plan_cancel(new_operation_id(), by=_actor(principal), message="Job cancelled by user")
    return plan_retry(new_operation_id()) if action == "retry" else plan_delete(new_operation_id())


def _actor(principal: Principal) -> str | None:
    return principal.id and single_line(principal.id)  # a custom `auth` may return any text


async def _startable(
    context: WebContext, jobs: list[Job], principal: Principal
) -> tuple[list[Job], list[dict[str, str]]]:
    """Return the jobs that the caller may retry, and the outcomes of the others. The former count against the quota."""
    allowed: list[Job] = []
    refused: list[tuple[Job, str]] = []
    for job in jobs:
        try:
            await context.may_start(principal, job.job_type, job.run_by, job.queue, job.origin)
        except (Problem, UnknownJobTypeError) as no:
            refused.append((job, no.detail if isinstance(no, Problem) else str(no)))
        else:
            allowed.append(job)
    eligible = [job for job in allowed if applies("retry", job)]
    available = await context.quotas.available(principal, len(eligible))
    for job in eligible[:available]:
        context.quotas.submitted(principal, job.job_id)
    beyond = {job.job_id for job in eligible[available:]}
    refused += [(job, "Too many pending jobs") for job in eligible[available:]]
    allowed = [job for job in allowed if job.job_id not in beyond]
    return allowed, [{"job_id": job.job_id, "outcome": "refused", "detail": detail} for job, detail in refused]


async def _deletable(context: WebContext, jobs: list[Job]) -> tuple[list[Job], list[dict[str, str]]]:
    """Return the jobs that may be deleted, and the outcomes of the others: children of open parents that are to stay.

    Children of a job that is deleted as well come last, since they are deleted with it.
    """
    chosen = {job.job_id: job for job in jobs}
    alone, below = list[Job](), list[Job]()
    refused: list[dict[str, str]] = []
    for job in jobs:
        top = job
        while top.child_key is not None and top.parent_id in chosen:
            top = chosen[top.parent_id]
        try:
            await descendants.refuse_child(context.store, top)
        except IllegalTransitionError as no:
            refused.append({"job_id": job.job_id, "outcome": "refused", "detail": str(no)})
        else:
            (alone if top is job else below).append(job)
    return [*alone, *below], refused


async def _act(
    context: WebContext, body: schemas.BulkBody, jobs: list[Job], principal: Principal
) -> list[dict[str, str]]:
    outcomes: list[dict[str, str]] = []
    if body.action == "retry":
        jobs, outcomes = await _startable(context, jobs, principal)
    elif body.action == "delete":
        jobs, outcomes = await _deletable(context, jobs)
    batches: list[Job] = []
    for start in range(0, len(jobs), BATCH_SIZE):
        some = jobs[start : start + BATCH_SIZE]
        retry = body.action == "retry"
        writes = [Write(job.job_id, _plan(body.action, principal), answer=retry) for job in some]
        try:
            answers = (await context.store.apply(writes)).outcomes
            if retry:
                await context.manager.dispatch([one.job for one in answers if one.accepted and one.job is not None])
            if body.action == "delete":
                for job, answer in zip(some, answers, strict=True):
                    if answer.accepted and job.attempt:  # only a run makes children
                        await descendants.delete_below(context.store, job.job_id, new_operation_id)
            if body.action == "cancel":
                batches += [job for job, one in zip(some, answers, strict=True) if is_batch(job) and _is_cancelled(one)]
        except StoreError as error:
            if not start:
                raise
            raise OutcomeUnknownError(f"after the first {start}: {error}") from error
        for job, answer in zip(some, answers, strict=True):
            if answer.accepted:
                outcomes.append({"job_id": job.job_id, "outcome": "done"})
            elif answer.job is None:
                gone = "done" if body.action == "delete" else "missing"
                outcomes.append({"job_id": job.job_id, "outcome": gone, "detail": "Job not found"})
            else:
                detail = str(rejection_error(answer, job.job_id, body.action))
                outcomes.append({"job_id": job.job_id, "outcome": "refused", "detail": detail})
    await _cancel_members(context, batches, principal)
    return outcomes


def _is_cancelled(answer: WriteResult) -> bool:
    return answer.accepted or (answer.job is not None and answer.job.status is JobStatus.CANCELLED)


async def _cancel_members(context: WebContext, batches: list[Job], principal: Principal) -> None:
    """Cancel the open jobs of batches, at the end, since these may have been chosen as well."""
    for job in batches:
        try:
            await descendants.cancel_members_of_batch(context.store, job.job_id, new_operation_id, by=_actor(principal))
        except StoreError as error:
            raise OutcomeUnknownError(f"among the jobs of batch {job.job_id}: {error}") from error
