"""Submit jobs, once per idempotency key."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from milepost.core.errors import DuplicateJobError, InvalidInputError, StoreError
from milepost.core.job import Job
from milepost.core.record import OPTIONS
from milepost.core.serialization import validate_key
from milepost.run.otel import current_trace
from milepost.stores.ids import new_job_id
from milepost.stores.protocol import KeyValue, Select, Store
from milepost.stores.query import Query
from milepost.stores.refused_groups import unknown_error
from milepost.web import schemas
from milepost.web.context import WebContext, job_url, principal_of
from milepost.web.http.json_body import JsonResponse, redacted_job_bytes
from milepost.web.http.problems import RETRY_SOON, Problem
from milepost.web.live.job_stream import preferred_wait, wait_until
from milepost.web.security.principals import READ, WRITE, Principal
from milepost.worker.registry import is_published

RETENTION_SECONDS = 24 * 3600.0
IN_PROGRESS_MICROS = 10_000_000
"""Time after which a request without a response counts as lost. A repeated request then continues with the same job id.
It is well below the time for which clients retry while the store is unavailable.
"""


@dataclass(frozen=True, slots=True)
class FirstResponse:
    """The first response to an idempotency key."""

    status: int
    job_id: str
    body: str
    replayed: bool = True


async def run_once(
    store: Store,
    principal: Principal,
    key: str,
    body: bytes,
    new_id: Callable[[], str],
    make: Callable[[str], Awaitable[FirstResponse]],
) -> FirstResponse:
    """Return the first response to an idempotency key: a stored one, or that of `make`, which gets the id of the new
    job.

    Raises Problem 409 while the first request is in progress, and 422 if its body was different.
    """
    validate_key(key, "Idempotency-Key", 255)
    name = hashlib.sha256(f"{principal.name}\n{key}".encode()).hexdigest()
    entry, digest = f"idempotency/{name}", hashlib.sha256(body).hexdigest()
    now = await store.now()
    begun = {"digest": digest, "job_id": new_id(), "at": now}
    version = await store.kv_put(entry, json.dumps(begun), version=0, ttl=RETENTION_SECONDS)
    if version is None:
        item = await store.kv_get(entry)
        if item is None:
            raise Problem(409, "The first request with this Idempotency-Key has just expired; repeat the request")
        answered = _first(item, digest)
        if answered is not None:
            return answered
        begun = json.loads(item.value)
        if abs(now - int(begun["at"])) < IN_PROGRESS_MICROS:  # further in the future: the clock was set back since
            text = "A request with this Idempotency-Key is already in progress"
            raise Problem(409, text, headers=RETRY_SOON)
        begun["at"] = now
        version = await store.kv_put(entry, json.dumps(begun), version=item.version, ttl=RETENTION_SECONDS)
        if version is None:
            text = "A request with this Idempotency-Key is already in progress"
            raise Problem(409, text, headers=RETRY_SOON)
    try:
        answer = await make(str(begun["job_id"]))
    except StoreError:
        raise  # it may have been applied; the key keeps its job id for the repeated request
    except Exception:
        await store.kv_delete(entry)  # refused, so no job was created
        raise
    kept = {"digest": digest, "job_id": answer.job_id, "status": answer.status, "body": answer.body}
    await store.kv_put(entry, json.dumps(kept), version=version, ttl=RETENTION_SECONDS)
    return answer


def _first(item: KeyValue, digest: str) -> FirstResponse | None:
    held = json.loads(item.value)
    if held["digest"] != digest:
        raise Problem(422, "This Idempotency-Key was already used with a different request body")
    return FirstResponse(held["status"], held["job_id"], held["body"]) if "status" in held else None


log = logging.getLogger("milepost.web.submission")
log.addHandler(logging.NullHandler())

_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z")


def add_submit(router: APIRouter, context: WebContext) -> None:
    """Add the route for submitting jobs."""

    @router.post(
        "/api/jobs",
        dependencies=[context.authenticator.require(WRITE)],
        status_code=201,
        response_model=schemas.JobRecord,
        responses={
            **schemas.problems(409, 413, 415, 507),
            200: {
                "model": schemas.JobRecord,
                "description": "The existing job with the unique key, or with `Prefer: wait` the ended job",
            },
        },
        tags=["jobs"],
        summary="Submit a job",
    )
    async def submit(request: Request, body: schemas.SubmitBody) -> Response:
        principal = principal_of(request)
        refuse_misplaced(body)
        queue = body.queue
        if principal.queues and queue is None and body.run_by == "worker":
            queue = await context.manager.submissions.default_queue(body.job_type)
        await context.may_start(principal, body.job_type, body.run_by, queue)
        if body.run_by == "manual" and not principal.unlimited:
            await refuse_published(context, body.job_type)
            await context.quotas.before_create(principal, body.job_type)
        await context.quotas.before_submit(principal)
        await refuse_hidden(context, principal, body)
        options = options_of(body, principal, request)
        key = request.headers.get("idempotency-key")

        async def make(job_id: str) -> FirstResponse:
            job = await _record(context, body, {**options, "job_id": body.job_id or job_id})
            context.quotas.submitted(principal, job.job_id)
            status = 201 if job.job_id == (body.job_id or job_id) else 200
            # Only a new id is certain to belong to a job of this request.
            seen = job.to_json() if job.job_id == job_id else seen_bytes(principal, job)
            return FirstResponse(status, job.job_id, seen.decode(), replayed=False)

        if key is None:
            answer = await make(new_job_id())
        else:
            answer = await run_once(context.store, principal, key, await request.body(), new_job_id, make)
        seconds = preferred_wait(request)
        try:
            job = await context.store.get(answer.job_id) if seconds else None
            ended = (
                await wait_until(context.hub, job, lambda now: now.is_terminal, seconds, principal)
                if seconds and job
                else None
            )
        except (StoreError, Problem) as error:
            # The job is recorded; an error would make the client submit it again.
            log.info("job %s: cannot wait for its end: %s", answer.job_id, error)
            seconds = ended = None
        if ended is not None and ended.is_terminal:
            answer = FirstResponse(200, ended.job_id, seen_bytes(principal, ended).decode(), answer.replayed)
        headers = {"Location": job_url(request, answer.job_id), "Cache-Control": "no-store"}
        if answer.status == 201:
            headers |= RETRY_SOON
        if answer.replayed:
            headers["Idempotency-Replayed"] = "true"
        if seconds is not None:
            headers["Preference-Applied"] = f"wait={seconds:g}"
        return JsonResponse(answer.body.encode(), answer.status, headers)


def seen_bytes(principal: Principal, job: Job) -> bytes:
    """Return a record as the caller may see it: without its content if the caller lacks the scope to read."""
    return job.to_json() if principal.may(READ) else redacted_job_bytes(job)


async def refuse_published(context: WebContext, job_type: str) -> None:
    """Refuse to create a record under a job type of the workers, because its result would be forged. Raises Problem
    403.
    """
    if await is_published(context.store, job_type):
        raise Problem(
            403,
            f"Workers run jobs of type {job_type!r:.100}; only an admin may create or update one with run_by 'manual'",
        )


async def refuse_hidden(context: WebContext, principal: Principal, body: schemas.SubmitBody) -> None:
    """Refuse jobs and groups that the caller may not see, in the words for unknown ones. Raises InvalidInputError."""
    if not principal.bound:
        return
    OPTIONS["after"].write("after", body.after)  # a malformed entry is refused as such
    named = [("after", group) for group in body.after or ()]
    if body.parent_id is not None:
        named.append(("parent_id", f"job:{body.parent_id}"))
    for field, group in named:
        kind, _, name = group.partition(":")
        if kind == "group":
            is_seen = await _has_members(context, principal, name)
        else:
            job = await context.manager.get_job(name)
            is_seen = job is not None and principal.sees(job)
        if not is_seen:
            raise unknown_error(field, group)
    if body.group is not None and not await _has_members(context, principal, body.group):
        in_group = Select(labels=((":group", body.group),))
        if await context.store.count(in_group):
            raise InvalidInputError(
                "group", f"{body.group!r:.140} is in use by jobs that this key may not see; rename it"
            )


async def _has_members(context: WebContext, principal: Principal, group: str) -> bool:
    """Return whether a group has a job that the caller may see."""
    query = Query(Select(labels=((":group", group),)))
    return bool((await context.find(principal, query, 1)).jobs)


def options_of(body: schemas.SubmitBody, principal: Principal, request: Request) -> dict[str, Any]:
    """Return the options of a submit, restricted by its principal. Raises InvalidInputError."""
    if principal.bound and body.job_id is not None:
        raise InvalidInputError("job_id", "cannot be set with a key that is restricted to labels; omit it")
    trace = current_trace() or request.headers.get("traceparent", "")
    chosen = {name: getattr(body, name) for name, option in OPTIONS.items() if option.http}
    chosen |= principal.bound_options(
        body.labels, body.unique_key, limit_key=body.limit_key, partition=body.partition, priority=body.priority
    )
    if body.run_by == "manual":
        chosen["priority"] = None
    chosen["trace"] = trace if _TRACE.match(trace) else None
    return {name: value for name, value in chosen.items() if value is not None} | {"on_duplicate": body.on_duplicate}


async def _record(context: WebContext, body: schemas.SubmitBody, options: dict[str, Any]) -> Job:
    """Record the job. If its id exists, this repeats a request whose response was lost, and returns that job."""
    if body.on_duplicate == "supersede" and body.job_id is None:
        made = await context.store.get(options["job_id"])
        if made is not None:
            return made  # it has the unique key and would supersede itself
    try:
        if body.run_by == "manual":
            return await _create(context, body, options)
        return await context.manager.submit(body.job_type, body.params, **options)
    except DuplicateJobError as refused:
        mine = body.job_id is None and refused.job is not None and refused.job.job_id == options["job_id"]
        if mine and refused.job is not None:
            return refused.job
        raise


_OF_WORKERS = {"params", *(name for name, option in OPTIONS.items() if not option.manual)}
_OF_CALLERS = {name for name, option in OPTIONS.items() if not option.worker}


async def _create(context: WebContext, body: schemas.SubmitBody, options: dict[str, Any]) -> Job:
    """Record a job that its caller runs, as `create_job` does."""
    given = {name: value for name, value in options.items() if name not in ("job_id", "on_duplicate", "metadata")}
    try:
        return await context.manager.create_job(options["job_id"], body.job_type, body.metadata, **given)
    except DuplicateJobError as refused:
        holder = refused.job
        key = options.get("unique_key")
        asked = "on_duplicate" in body.model_fields_set and body.on_duplicate == "return"
        if asked and key is not None and holder is not None and holder.unique_key == key:
            return holder
        raise


def refuse_misplaced(body: schemas.SubmitBody) -> None:
    """Refuse options that belong to the other kind of job. Raises InvalidInputError."""
    fields = type(body).model_fields
    given = {
        name
        for name in body.model_fields_set
        if getattr(body, name) not in (None, fields[name].get_default(call_default_factory=True))
    }
    misplaced = given & (_OF_WORKERS if body.run_by == "manual" else _OF_CALLERS)
    if body.run_by == "manual" and body.on_duplicate == "supersede":
        misplaced.add("on_duplicate")
    if misplaced:
        raise InvalidInputError(min(misplaced), f"not supported with run_by {body.run_by!r}; remove it")
