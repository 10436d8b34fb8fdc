"""Errors as RFC 9457 `application/problem+json`: which exception gives which status."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import Response

from milepost.core.errors import (
    DuplicateJobError,
    FilterError,
    IllegalTransitionError,
    InvalidInputError,
    JobNotFoundError,
    LeaseHeldError,
    MilepostError,
    OutcomeUnknownError,
    RejectedError,
    ScheduleNotFoundError,
    StoreError,
    StoreFullError,
    TooManyRequestsError,
    UnknownJobTypeError,
)
from milepost.web.schemas.fields import ID_PATTERN, TYPE_PATTERN

log = logging.getLogger("milepost.web")
log.addHandler(logging.NullHandler())

MEDIA_TYPE = "application/problem+json"
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
RETRY_LATER = {"Retry-After": "5"}
"""For a server or a store that is unavailable."""
RETRY_SOON = {"Retry-After": "1"}
"""For work that is under way."""


class Problem(HTTPException):
    """An error response: a status, a text for people, and more members for programs."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.more = more


def not_found() -> Problem:
    """Return the 404 for a job that does not exist or that the principal may not see. Both give the same bytes."""
    return Problem(404, "Job not found")


def response(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """Return a problem document."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")
    return Response(text, status, {**HEADERS, **(headers or {})}, MEDIA_TYPE)


def response_for(error: Exception) -> Response | None:
    """Return the response for an exception of milepost or FastAPI, or None for a defect."""
    if isinstance(error, Problem):
        return response(error.status_code, str(error.detail), error.headers, **error.more)
    if isinstance(error, StarletteHTTPException):
        detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail, default=str)
        return response(error.status_code, detail, error.headers)
    if isinstance(error, RequestValidationError):
        return _malformed(error)
    if isinstance(error, MilepostError):
        return _milepost_error(error)
    return None


def _milepost_error(error: MilepostError) -> Response:
    name = type(error).__name__
    match error:
        case JobNotFoundError():
            return response_for(not_found()) or response(404, "Job not found")
        case ScheduleNotFoundError():
            return response(404, str(error), schedule=error.name, error=name)
        case FilterError():
            return response(422, error.problem, filter=error.text, position=error.position, error=name)
        case InvalidInputError():
            return response(422, str(error), field=error.field, error=name)
        case UnknownJobTypeError():
            return response(422, str(error), job_type=error.job_type, known=list(error.known), error=name)
        case DuplicateJobError():
            return response(409, str(error), job_id=error.job.job_id if error.job is not None else None, error=name)
        case TooManyRequestsError():
            return response(429, str(error), {"Retry-After": str(error.retry_after)}, error=name)
        case IllegalTransitionError() | LeaseHeldError() | RejectedError():
            return response(
                409, str(error), job_status=error.job.status.value if error.job is not None else None, error=name
            )
        case StoreFullError():
            return response(507, "The job store is full and accepts no new data", {"Retry-After": "30"})
        case OutcomeUnknownError():
            return response(503, "The job store did not respond in time; the request may or may not have been applied",
                            RETRY_LATER, outcome="unknown")  # fmt: skip
        case StoreError():
            log.warning("job store unavailable: %s", error)
            return response(503, "The job store is unavailable", RETRY_LATER, error=name)
    return response(503, str(error), RETRY_LATER)


def _malformed(error: RequestValidationError) -> Response:
    """Return a 422 that names each invalid field without echoing its value, which may be large or secret."""
    items = error.errors()[:20]
    problems = [{"where": ".".join(map(str, item["loc"]))[:200], "problem": _problem_of(item)[:300]} for item in items]
    # A field is named as the caller wrote it: without `body` or `query`.
    fields = [".".join(map(str, item["loc"][1:] or item["loc"]))[:200] for item in items]
    texts = [f"{field}: {item['problem']}" for field, item in zip(fields, problems, strict=True)]
    return response(422, "; ".join(texts) or "The request is not valid", errors=problems)


def _problem_of(item: Mapping[str, Any]) -> str:
    """Return what is wrong with a field in the words of our own errors."""
    match item["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a known field; remove it"
        case "json_invalid":
            return "the request body is not valid JSON at this position"
        case "string_pattern_mismatch":
            return _PATTERNS.get(item["ctx"]["pattern"], f"must match {item['ctx']['pattern']}")
        case "value_error":
            return str(item["ctx"]["error"])
    text = str(item["msg"]).replace(" after validation", "")
    return re.sub(r"^(Input|String|List|Dictionary) should ", "must ", text)


_PATTERNS = {
    TYPE_PATTERN: "must be 1 to 128 of the characters A-Z a-z 0-9 . _ : / -",
    ID_PATTERN: "must be 1 to 128 of the characters A-Z a-z 0-9 . _ : -",
}


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Handle exceptions outside our routes, for an application of our own."""
    return response_for(error) or response(500, "Internal Server Error")
