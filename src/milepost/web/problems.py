"""Errors as RFC 9457 `application/problem+json`. Owns which error becomes which status; `detail` keeps the original's texts."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import Request
from starlette.responses import Response

from milepost.core.errors import (
    DuplicateJob,
    FilterError,
    IllegalTransition,
    InvalidInput,
    JobIsLeased,
    JobNotFound,
    MilepostError,
    OutcomeUnknown,
    Refused,
    StoreError,
    StoreFull,
    UnknownJobType,
)

log = logging.getLogger("milepost.web")
log.addHandler(logging.NullHandler())

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "5"


class Problem(HTTPException):
    """An answer that is an error: a status, a text for people, and what else a program may want to know."""

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.more = more


def missing() -> Problem:
    """The answer for an id that is not there, or that this principal may not see: the same bytes."""
    return Problem(404, "Job not found")


def response(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """A problem document."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")
    return Response(text, status, {"Cache-Control": "no-store", **(headers or {})}, MEDIA_TYPE)


def of(error: Exception) -> Response | None:
    """The answer for an error that is one of ours or FastAPI's; None for a defect."""
    if isinstance(error, Problem):
        return response(error.status_code, str(error.detail), error.headers, **error.more)
    if isinstance(error, StarletteHTTPException):
        detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail, default=str)
        return response(error.status_code, detail, error.headers)
    if isinstance(error, RequestValidationError):
        return _malformed(error)
    if isinstance(error, MilepostError):
        return _ours(error)
    return None


def _ours(error: MilepostError) -> Response:
    name = type(error).__name__
    match error:
        case JobNotFound():
            return of(missing()) or response(404, "Job not found")
        case FilterError():
            return response(422, error.problem, filter=error.text, position=error.position, error=name)
        case InvalidInput():
            return response(422, str(error), field=error.field, error=name)
        case UnknownJobType():
            return response(422, str(error), job_type=error.job_type, known=list(error.known), error=name)
        case DuplicateJob():
            return response(409, str(error), job_id=error.job.job_id if error.job is not None else None, error=name)
        case IllegalTransition() | JobIsLeased() | Refused():
            return response(
                409, str(error), job_status=error.job.status.value if error.job is not None else None, error=name
            )
        case StoreFull():
            return response(507, "The store is full; it accepts no new data", {"Retry-After": "30"})
        case OutcomeUnknown():
            return response(503, "The store did not answer in time; the request may or may not have been applied",
                            {"Retry-After": RETRY_AFTER}, outcome="unknown")  # fmt: skip
        case StoreError():
            log.warning("the store cannot answer: %s", error)
            return response(503, "The store cannot be reached", {"Retry-After": RETRY_AFTER})
    return response(503, str(error), {"Retry-After": RETRY_AFTER})


def _malformed(error: RequestValidationError) -> Response:
    """422 that says where and what, without echoing what was sent (it may be large, or secret)."""
    problems = [
        {"where": ".".join(str(part) for part in item.get("loc", ()))[:200], "problem": str(item.get("msg", ""))[:300]}
        for item in error.errors()[:20]
    ]
    detail = "; ".join(f"{item['where']}: {item['problem']}" for item in problems) or "the request is malformed"
    return response(422, detail, errors=problems)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """For an application of our own: what no route of ours has caught."""
    return of(error) or response(500, "Internal Server Error")
