"""Decoding of the server's JSON to Jobs, Events, Pages and the errors that a manager raises."""

from __future__ import annotations

import json
from typing import Any

from milepost.core import errors
from milepost.core.codecs import time_of
from milepost.core.errors import (
    DuplicateJobError,
    FilterError,
    IllegalTransitionError,
    InvalidInputError,
    JobNotFoundError,
    MilepostError,
    OutcomeUnknownError,
    ScheduleNotFoundError,
    StoreFullError,
    StoreUnavailableError,
    TooManyRequestsError,
    UnknownJobTypeError,
)
from milepost.core.events import Event
from milepost.core.job import Job, JobStatus
from milepost.core.record import PUBLIC
from milepost.stores.query import Page


class AccessDeniedError(MilepostError, PermissionError):
    """The API key is invalid or lacks the required scope."""


def decode_job(data: dict[str, Any]) -> Job:
    """Return a Job, with the activity that the server says; fields unknown to this release are ignored."""
    job = Job(**{one.name: one.load(data[one.name]) for one in PUBLIC if one.name in data})
    said = data.get("activity")
    return job._say(said) if isinstance(said, str) else job


def decode_event(data: dict[str, Any]) -> Event:
    """Return an Event."""
    status = data.get("status")
    return Event(
        data["job_id"],
        data["version"],
        data["kind"],
        time_of(data.get("at")),
        JobStatus(status) if status is not None else None,
        data.get("progress"),
        data.get("message"),
        data.get("data") or {},
    )


def decode_page(data: dict[str, Any]) -> Page:
    """Return a Page."""
    total = data["total"]
    at_least = data.get("total_at_least", total) or 0
    jobs = [decode_job(job) for job in data["jobs"]]
    return Page(jobs, total, at_least, data.get("next_cursor"), data.get("scanned_all", True))


_ERRORS_BY_NAME: dict[str, type[MilepostError]] = {
    name: getattr(errors, name)
    for name in (
        "AlreadyAnsweredError",
        "DuplicateJobError",
        "IllegalTransitionError",
        "LeaseHeldError",
        "QuestionExpiredError",
        "RejectedError",
        "IdempotencyConflictError",
    )
}


def decode_error(status: int, body: bytes, job_id: str | None = None) -> MilepostError:
    """Return the error of a response, of the class that a manager would raise if the server names it."""
    problem = _problem(status, body)
    detail, name = str(problem.get("detail", "")), str(problem.get("error", ""))
    if status == 404 and job_id is not None:
        return JobNotFoundError(job_id)
    if problem.get("missing") == "api_key":
        return AccessDeniedError("An API key is required: set MILEPOST_KEY, or in Python key=")
    if status in (401, 403):
        return AccessDeniedError(detail)
    if name == "TooManyRequestsError":
        return TooManyRequestsError(detail)
    if name in _ERRORS_BY_NAME:
        return _ERRORS_BY_NAME[name](detail)
    if status == 400:
        return IllegalTransitionError(detail)
    if status == 409:
        return DuplicateJobError(detail)
    if status in (404, 413, 415, 422):
        return _invalid_input(detail, name, problem)
    if status == 507:
        return StoreFullError(detail)
    if problem.get("outcome") == "unknown":
        return OutcomeUnknownError(detail)
    return StoreUnavailableError(f"server error {status}: {detail}")


def _invalid_input(detail: str, name: str, problem: dict[str, Any]) -> MilepostError:
    if name == "FilterError":
        return FilterError(str(problem.get("filter", "")), int(problem.get("position", 0)), detail)
    if name == "UnknownJobTypeError":
        return UnknownJobTypeError(str(problem.get("job_type", "")), tuple(problem.get("known", ())))
    if name == "ScheduleNotFoundError":
        return ScheduleNotFoundError(str(problem.get("schedule", "")))
    field, _, rest = detail.partition(": ")
    return InvalidInputError(field, rest) if rest else InvalidInputError("request", detail)


def _problem(status: int, body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    text = body[:200].decode("utf-8", "replace")
    return problem if isinstance(problem, dict) else {"detail": text or f"status {status}"}
