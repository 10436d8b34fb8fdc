"""Submitting: a job for the workers, checked against its type, once for each idempotency key."""

from __future__ import annotations

import logging
import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from milepost.core.errors import DuplicateJob, InvalidInput, StoreError
from milepost.core.job import Job
from milepost.stores.ids import new_job_id
from milepost.tracking.tracing import current_trace
from milepost.web import models
from milepost.web.idempotency import Answered, once
from milepost.web.principals import WRITE, Principal
from milepost.web.problems import Problem
from milepost.web.site import Site, place_of, who
from milepost.web.waiting import preferred_wait, wait_until
from milepost.web.wire import job_bytes

log = logging.getLogger("milepost.web.submission")
log.addHandler(logging.NullHandler())

_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


def add_submission(router: APIRouter, site: Site) -> None:
    """Add the call that submits."""

    @router.post(
        "/api/jobs",
        dependencies=[site.gate.need(WRITE)],
        status_code=201,
        response_model=models.JobRecord,
        responses={
            **models.problems(409, 413, 415, 507),
            200: {
                "model": models.JobRecord,
                "description": "The job that has the unique key; or the ended job, when `Prefer: wait` lasted so long",
            },
        },
        tags=["jobs"],
        summary="Submit a job for the workers",
    )
    async def submit(request: Request, body: models.SubmitBody) -> Response:
        principal = who(request)
        refuse_misplaced(body)
        options = options_of(body, principal, request)
        key = request.headers.get("idempotency-key")

        async def make(job_id: str) -> Answered:
            job = await _record(site, body, {**options, "job_id": body.job_id or job_id})
            status = 201 if job.job_id == (body.job_id or job_id) else 200
            return Answered(status, job.job_id, job_bytes(job).decode(), replayed=False)

        if key is None:
            answer = await make(new_job_id())
        else:
            answer = await once(site.store, principal, key, await request.body(), new_job_id, make)
        seconds = preferred_wait(request)
        try:
            job = await site.store.get(answer.job_id) if seconds else None
            ended = await wait_until(site, job, lambda now: now.is_terminal, seconds) if seconds and job else None
        except (StoreError, Problem) as error:
            # It is recorded. An error would tell the client to send it again.
            log.info("job %s is not waited for: %s", answer.job_id, error)
            seconds = ended = None
        if ended is not None and ended.is_terminal:
            answer = Answered(200, ended.job_id, job_bytes(ended).decode(), answer.replayed)
        headers = {"Location": place_of(request, answer.job_id), "Cache-Control": "no-store"}
        if answer.status == 201:
            headers["Retry-After"] = "1"
        if answer.replayed:
            headers["Idempotency-Replayed"] = "true"
        if seconds is not None:
            headers["Preference-Applied"] = f"wait={seconds:g}"
        return Response(answer.body, answer.status, headers, "application/json")


def options_of(body: models.SubmitBody, principal: Principal, request: Request) -> dict[str, Any]:
    """The options of a submit, bound to its principal. Raises InvalidInput."""
    labels, unique_key = dict(body.labels or {}), body.unique_key
    if principal.bound:
        if body.job_id is not None:
            raise InvalidInput("job_id", "is chosen by the server for a principal that is bound to labels")
        for name, value in principal.labels.items():
            if labels.setdefault(name, value) != value:
                raise InvalidInput(f"labels.{name}", "is fixed for this principal")
        unique_key = f"{principal.binding}/{unique_key}" if unique_key is not None else None
    trace = current_trace() or request.headers.get("traceparent", "")
    chosen: dict[str, Any] = {
        "metadata": body.metadata,
        "labels": labels or None,
        "priority": body.priority if "priority" in body.model_fields_set else None,
        "not_before": body.not_before,
        "not_after": body.not_after,
        "max_attempts": body.max_attempts,
        "timeout": body.timeout,
        "on_lost": body.on_lost,
        "parent_id": body.parent_id if body.driver == "worker" else None,
        "unique_key": unique_key,
        "trace": trace if _TRACE.match(trace) else None,
    }
    return {name: value for name, value in chosen.items() if value is not None} | {"on_duplicate": body.on_duplicate}


async def _record(site: Site, body: models.SubmitBody, options: dict[str, Any]) -> Job:
    """Record the job. When a request is repeated after a lost answer, its id is there already: it is that job."""
    if body.on_duplicate == "supersede" and body.job_id is None:
        made = await site.store.get(options["job_id"])
        if made is not None:
            return made  # it has the unique key, and would supersede itself
    try:
        if body.driver == "caller":
            return await _create(site, body, options)
        return await site.manager.submit(body.job_type, body.params, **options)
    except DuplicateJob as refused:
        mine = body.job_id is None and refused.job is not None and refused.job.job_id == options["job_id"]
        if mine and refused.job is not None:
            return refused.job
        raise


_OF_WORKERS = frozenset(("params", "priority", "not_before", "not_after", "max_attempts", "timeout", "on_lost"))
_OF_CALLERS = frozenset(("stale_after", "on_stale"))


async def _create(site: Site, body: models.SubmitBody, options: dict[str, Any]) -> Job:
    """Record a job that its caller drives, as `create_job` does."""
    try:
        return await site.manager.create_job(
            options["job_id"],
            body.job_type,
            body.metadata,
            labels=options.get("labels"),
            unique_key=options.get("unique_key"),
            stale_after=body.stale_after,
            on_stale=body.on_stale,
            parent_id=body.parent_id,
            trace=options.get("trace"),
        )
    except DuplicateJob as refused:
        holder = refused.job
        key = options.get("unique_key")
        asked = "on_duplicate" in body.model_fields_set and body.on_duplicate == "return"
        if asked and key is not None and holder is not None and holder.unique_key == key:
            return holder
        raise


def refuse_misplaced(body: models.SubmitBody) -> None:
    """Refuse what belongs to the other kind of job. Raises InvalidInput."""
    fields = type(body).model_fields
    given = {
        name
        for name in body.model_fields_set
        if getattr(body, name) not in (None, fields[name].get_default(call_default_factory=True))
    }
    misplaced = given & (_OF_WORKERS if body.driver == "caller" else _OF_CALLERS)
    if body.driver == "caller" and body.on_duplicate == "supersede":
        misplaced.add("on_duplicate")
    if misplaced:
        whose = "workers run" if body.driver == "caller" else "its caller drives"
        raise InvalidInput(min(misplaced), f"belongs to a job that {whose}")
