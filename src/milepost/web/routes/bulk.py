"""Acting on many jobs: by ids or by a filter, counted first, in steps of a thousand with an outcome for each."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from milepost.core.change import Change
from milepost.core.encoding import one_line
from milepost.core.errors import OutcomeUnknown, StoreError
from milepost.core.job import Job, JobStatus
from milepost.core.lifecycle import plan_cancel, plan_delete, plan_retry
from milepost.stores.filters import parse_filter
from milepost.stores.ids import new_op
from milepost.stores.protocol import Write
from milepost.stores.query import SCAN_MAX, Query
from milepost.web import models
from milepost.web.principals import CANCEL, DELETE, WRITE, Principal
from milepost.web.problems import Problem
from milepost.web.site import Site, who
from milepost.web.wire import encoded

SCOPE = {"cancel": CANCEL, "retry": WRITE, "delete": DELETE}
BATCH = 200
PAGE = 1000


def add_bulk(router: APIRouter, site: Site) -> None:
    """Add the call about many jobs."""

    @router.post("/api/jobs/bulk", dependencies=[site.gate.need(None)], response_model=models.BulkDone,
                 responses=models.problems(), tags=["jobs"],
                 summary="Cancel, retry or delete many jobs; with `dry_run` only count them")  # fmt: skip
    async def bulk(request: Request, body: models.BulkBody) -> Response:
        principal = who(request)
        if not principal.may(SCOPE[body.action]):
            raise Problem(403, f"This needs the scope {SCOPE[body.action]}", scope=SCOPE[body.action])
        if (body.ids is None) == (body.q is None):
            raise Problem(422, "Give either ids or q; an empty q is every job")
        if body.dry_run:
            return Response(encoded(await _count(site, body, principal)), media_type="application/json")
        jobs, cursor = await _chosen(site, body, principal)
        known = {job.job_id for job in jobs}
        absent = [job_id for job_id in body.ids or () if job_id not in known]
        outcomes = await _act(site, body, jobs, principal)
        outcomes += [{"job_id": job_id, "outcome": "missing", "detail": "Job not found"} for job_id in absent]
        done = sum(one["outcome"] == "done" for one in outcomes)
        answer = {"action": body.action, "done": done, "outcomes": outcomes, "next_cursor": cursor}
        return Response(encoded(answer), media_type="application/json")


def _query(body: models.BulkBody, principal: Principal) -> Query:
    return principal.within(parse_filter(body.q or "").query)


def applies(action: str, job: Job) -> bool:
    """Whether an action can do anything to a job as it is."""
    if action == "cancel":
        return not job.is_terminal
    if action == "retry":
        return job.status in (JobStatus.FAILED, JobStatus.CANCELLED) and job.driver in ("worker", "engine")
    return True


async def _count(site: Site, body: models.BulkBody, principal: Principal) -> dict[str, object]:
    """All that match, however many, and those of them that the action would change."""
    matching = eligible = 0
    exact = True
    if body.ids is not None:
        jobs, _ = await _chosen(site, body, principal)
        matching, eligible = len(jobs), sum(applies(body.action, job) for job in jobs)
    else:
        cursor: str | None = None
        while True:
            page = await site.manager.find(_query(body, principal), PAGE, cursor)
            matching += len(page.jobs)
            eligible += sum(applies(body.action, job) for job in page.jobs)
            cursor = page.next_cursor
            if cursor is None or matching >= SCAN_MAX or not page.scanned_all:
                exact = cursor is None
                break
    return {"action": body.action, "dry_run": True, "matching": matching, "eligible": eligible, "exact": exact}


async def _chosen(site: Site, body: models.BulkBody, principal: Principal) -> tuple[list[Job], str | None]:
    if body.ids is None:
        page = await site.manager.find(_query(body, principal), body.limit, body.cursor)
        return page.jobs, page.next_cursor
    found = [await site.manager.get_job(job_id) for job_id in dict.fromkeys(body.ids)]
    return [job for job in found if job is not None and principal.sees(job)], None


def _plan(action: str, principal: Principal) -> Change:
    if action == "cancel":
        who = principal.id and one_line(principal.id)  # a custom `auth` may give any text
        return plan_cancel(new_op(), by=who, message="Job cancelled by user")
    return plan_retry(new_op()) if action == "retry" else plan_delete(new_op())


async def _act(site: Site, body: models.BulkBody, jobs: list[Job], principal: Principal) -> list[dict[str, str]]:
    outcomes: list[dict[str, str]] = []
    for start in range(0, len(jobs), BATCH):
        some = jobs[start : start + BATCH]
        retry = body.action == "retry"
        writes = [Write(job.job_id, _plan(body.action, principal), answer=retry) for job in some]
        try:
            answers = (await site.store.apply(writes)).outcomes
            if retry:
                await site.manager.give([one.job for one in answers if one.accepted and one.job is not None])
        except StoreError as error:
            if not start:
                raise
            raise OutcomeUnknown(f"after the first {start}: {error}") from error
        for job, answer in zip(some, answers, strict=True):
            if answer.accepted:
                outcomes.append({"job_id": job.job_id, "outcome": "done"})
            elif answer.job is None:
                gone = "done" if body.action == "delete" else "missing"
                outcomes.append({"job_id": job.job_id, "outcome": gone, "detail": "Job not found"})
            else:
                detail = f"Cannot {body.action} job with status {answer.job.status}"
                outcomes.append({"job_id": job.job_id, "outcome": "refused", "detail": detail})
    return outcomes
