"""From the server's JSON to Jobs, Events, Pages and the errors that a manager would have raised. Owns that reading; knows
no transport.
"""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from typing import Any

from milepost.core import errors
from milepost.core.errors import (
    DuplicateJob,
    FilterError,
    IllegalTransition,
    InvalidInput,
    JobNotFound,
    MilepostError,
    OutcomeUnknown,
    StoreFull,
    StoreUnavailable,
    UnknownJobType,
)
from milepost.core.events import Event
from milepost.core.job import Eta, Failure, ItemCounts, Job, JobStatus, Receipt, Stage
from milepost.stores.query import Page

_TIMES = ("created_at", "started_at", "completed_at", "not_before", "not_after", "updated_at", "lease_expires_at", "checkpoint_at")  # fmt: skip
_NAMES = frozenset(f.name for f in fields(Job))


class AccessDenied(MilepostError, PermissionError):
    """The server does not know the key, or it lacks the scope."""


def moment(text: Any) -> datetime | None:
    """A time of an answer."""
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def part_of(cls: Any, data: Any) -> Any:
    """A dataclass from a JSON object; names that it does not know are passed over."""
    if not isinstance(data, dict):
        return None
    known = {f.name for f in fields(cls)}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known})


def job_of(data: dict[str, Any]) -> Job:
    """The job of a record; fields that this release does not know are passed over."""
    known = {name: value for name, value in data.items() if name in _NAMES}
    for name in _TIMES:
        known[name] = moment(known.get(name))
    known["status"] = JobStatus(known["status"])
    known["stages"] = tuple(part_of(Stage, stage) for stage in known.get("stages") or ())
    known["item_counts"] = part_of(ItemCounts, known.get("item_counts"))
    for name in ("eta", "expected_start"):
        known[name] = part_of(Eta, known.get(name))
    known["failure"] = part_of(Failure, known.get("failure"))
    receipt = known.get("receipt")
    if isinstance(receipt, dict):
        times = {name: moment(receipt.get(name)) for name in ("requested_at", "stopped_at")}
        known["receipt"] = part_of(Receipt, {**receipt, **times})
    return Job(**known)


def event_of(data: dict[str, Any]) -> Event:
    """The event of a message."""
    status = data.get("status")
    return Event(
        data["job_id"],
        data["version"],
        data["kind"],
        moment(data.get("at")),
        JobStatus(status) if status is not None else None,
        data.get("progress"),
        data.get("message"),
        data.get("data") or {},
    )


def page_of(data: dict[str, Any]) -> Page:
    """The page of a list."""
    total = data["total"]
    at_least = data.get("total_at_least", total) or 0
    jobs = [job_of(job) for job in data["jobs"]]
    return Page(jobs, total, at_least, data.get("next_cursor"), data.get("scanned_all", True))


_CLASSES: dict[str, type[MilepostError]] = {
    name: getattr(errors, name)
    for name in ("DuplicateJob", "IllegalTransition", "JobIsLeased", "Refused", "IdempotencyConflict")
}


def error_of(status: int, body: bytes, job_id: str | None = None) -> MilepostError:
    """The error that an answer stands for: of the class that a manager raises where the server named it."""
    problem = _problem(status, body)
    detail, name = str(problem.get("detail", "")), str(problem.get("error", ""))
    if status == 404 and job_id is not None:
        return JobNotFound(job_id)
    if status in (401, 403):
        return AccessDenied(detail)
    if name in _CLASSES:
        return _CLASSES[name](detail)
    if status == 400:
        return IllegalTransition(detail)
    if status == 409:
        return DuplicateJob(detail)
    if status in (404, 413, 415, 422):
        return _refusal(detail, name, problem)
    if status == 507:
        return StoreFull(detail)
    if problem.get("outcome") == "unknown":
        return OutcomeUnknown(detail)
    return StoreUnavailable(f"the server answered {status}: {detail}")


def _refusal(detail: str, name: str, problem: dict[str, Any]) -> MilepostError:
    if name == "FilterError":
        return FilterError(str(problem.get("filter", "")), int(problem.get("position", 0)), detail)
    if name == "UnknownJobType":
        return UnknownJobType(str(problem.get("job_type", "")), tuple(problem.get("known", ())))
    field, _, rest = detail.partition(": ")
    return InvalidInput(field, rest) if rest else InvalidInput("request", detail)


def _problem(status: int, body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    text = body[:200].decode("utf-8", "replace")
    return problem if isinstance(problem, dict) else {"detail": text or f"status {status}"}
