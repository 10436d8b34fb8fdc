"""Read request bodies within limits, and write responses as JSON."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message

from milepost.core.activity import open_stage
from milepost.core.codecs import jsonable
from milepost.core.job import Job
from milepost.core.record import LISTED
from milepost.core.serialization import JSON_DEPTH, compact_json
from milepost.query.filters import title
from milepost.settings import settings
from milepost.web.http.problems import Problem

MAX_BODY_BYTES = 1024 * 1024
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
"""A string, or the rest of the text after an unclosed quote, so that each byte is examined once."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_BRACES_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")


async def read_body(request: Request) -> Request:
    """Read the body of a request; return a request from which FastAPI reads it. Raises Problem 400, 408, 413, 415, 422."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise Problem(413, f"The body is larger than {MAX_BODY_BYTES} bytes", headers={"Connection": "close"})
    size, parts = 0, []
    context = getattr(request.app.state, "milepost", None)
    options = settings.current() if context is None else context.manager.settings
    timeout = options.request_timeout
    try:
        async with asyncio.timeout(timeout):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise Problem(
                        413, f"The body is larger than {MAX_BODY_BYTES} bytes", headers={"Connection": "close"}
                    )
                parts.append(part)
    except TimeoutError:
        text = f"The request body was not complete within {timeout:g} s"
        raise Problem(408, text, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "The request body is incomplete") from None  # the client is gone: not a server error
    body = b"".join(parts)
    if body:
        _check(request, body)
    unread = [body]

    async def receive() -> Message:
        return {"type": "http.request", "body": unread.pop()} if unread else await request.receive()

    return Request(request.scope, receive)


def _check(request: Request, body: bytes) -> None:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Problem(415, "The request body must be application/json", headers={"Accept": "application/json"})
    try:
        body.decode()
    except UnicodeDecodeError:
        raise Problem(422, "The request body is not valid UTF-8") from None
    if depth(body) > JSON_DEPTH:
        raise Problem(422, f"The request body is nested deeper than {JSON_DEPTH} levels")


def depth(body: bytes) -> int:
    """Return how deep a JSON text is nested, at most one more than is allowed, without parsing it.

    A parser would run out of stack first. Each pass removes the innermost pairs, so that the time does not depend on their
    number; what no pass removes is not JSON.
    """
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH:
        return 0
    left = _STRINGS.sub(b"", body).translate(_BRACES_AS_BRACKETS, _NO_BRACKETS)
    for level in range(JSON_DEPTH + 1):
        if not left:
            return level
        before, left = left, left.replace(b"[]", b"")
        if left == before:
            return min(left.count(b"["), JSON_DEPTH + 1)
    return JSON_DEPTH + 1


def encoded(value: Any) -> bytes:
    """Return a value as compact UTF-8 JSON. Lone surrogates in old records are replaced."""
    return compact_json(value).encode("utf-8", "replace")


class JsonResponse(Response):
    """A value as a JSON response; bytes are JSON already."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """See Response."""
        return content if isinstance(content, bytes) else encoded(content)


def redacted_job_bytes(job: Job) -> bytes:
    """Return a record without its content, for a caller without the scope to read."""
    shown = Job(
        job.job_id, job.job_type, job.status, job.progress, "", job.created_at, run_by=job.run_by, version=job.version
    )
    return shown.to_json()


def row(job: Job) -> dict[str, Any]:
    """Return a job as a list row: the listed fields, its title, its stage, and whether its cancel is not yet confirmed."""
    shown: dict[str, Any] = {one.name: one.row(getattr(job, one.name)) for one in LISTED}
    shown["stage"] = jsonable(open_stage(job.stages))
    shown["stage_number"] = sum(stage.parent is None for stage in job.stages)
    shown["stage_progress"] = job.stage_progress
    shown["activity"] = job.activity
    shown["title"] = title(job)
    shown["stopping"] = job.receipt is not None and job.receipt.confirmed is None
    return shown


def row_bytes(job: Job) -> bytes:
    """Return a job as a list row, as JSON."""
    return encoded(row(job))
