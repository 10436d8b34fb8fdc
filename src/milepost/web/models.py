"""The shapes of requests and answers, as OpenAPI shows them. Requests are checked by them; answers are written as bytes
elsewhere, and tests hold the two together.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["pending", "running", "completed", "failed", "cancelled"]
Json = Any
Whole = Annotated[int, Field(ge=-(2**31), le=2**31 - 1)]


class Asked(BaseModel):
    """A request: fields that are not known are refused, and what is not a number is not made one."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """An answer: clients must pass over fields that they do not know."""

    model_config = ConfigDict(extra="allow")


class StageShape(Answer):
    """A part of a run."""

    name: str
    weight: float
    done: float
    total: float | None
    unit: str
    parent: str | None
    started_at: str | None
    ended_at: str | None


class JobRecord(Answer):
    """One job: the eleven fields of the original, then what milepost adds."""

    job_id: str = Field(examples=["0199f3a2-7c1e-7d41-b2a0-5b1f0d6f9c11"])
    job_type: str = Field(examples=["ingestion"])
    status: Status
    progress: float = Field(ge=0, le=1)
    message: str
    created_at: str | None = Field(examples=["2026-11-25T09:30:00.123456+00:00"])
    started_at: str | None
    completed_at: str | None
    error: str | None
    result: Json = None
    metadata: Json = None
    driver: str
    params: Json = None
    labels: dict[str, str]
    priority: int
    attempt: int
    max_attempts: int
    crashes: int
    not_before: str | None
    not_after: str | None
    updated_at: str | None
    version: int
    worker: str | None
    lease_expires_at: str | None
    waiting_for: str | None
    parent_id: str | None
    unique_key: str | None
    stages: list[StageShape]
    item_counts: dict[str, Json] | None
    eta: dict[str, str] | None
    stalled: str | None
    receipt: dict[str, Json] | None
    failure: dict[str, Json] | None
    checkpoint_at: str | None
    retry_of: str | None
    trace: str | None


class JobList(Answer):
    """Some jobs, newest first. `total` is null where no index counts; then `total_at_least` says how many are known."""

    jobs: list[JobRecord]
    total: int | None
    total_at_least: int | None = None
    next_cursor: str | None = None
    scanned_all: bool | None = None
    reads: list[str] | None = None


class Done(Answer):
    """What was done, in the original's words."""

    message: str
    job_id: str


class ProblemShape(Answer):
    """RFC 9457: what went wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class EventShape(Answer):
    """One accepted change of a job; `version` is its sequence number."""

    job_id: str
    version: int
    kind: str
    at: str | None = None
    status: Status | None = None
    progress: float | None = None
    message: str | None = None
    data: dict[str, Json] | None = None


class CancelBody(Asked):
    """Why a job is cancelled."""

    reason: str | None = Field(None, max_length=1000)


class RetryBody(Asked):
    """How a job is retried."""

    only_failed: bool = False


class SubmitBody(Asked):
    """A job for the workers."""

    job_type: str = Field(min_length=1, max_length=128, examples=["ingestion"])
    params: dict[str, Json] = Field(default_factory=dict, examples=[{"path": "report.pdf"}])
    metadata: dict[str, Json] | None = None
    labels: dict[str, str] | None = None
    job_id: str | None = Field(None, max_length=128)
    priority: int = Field(0, ge=-100, le=100)
    not_before: datetime | None = None
    not_after: datetime | None = None
    max_attempts: int | None = Field(None, ge=1, le=1000)
    timeout: float | None = Field(None, gt=0, le=365 * 86400)
    unique_key: str | None = Field(None, min_length=1, max_length=512)
    on_duplicate: Literal["return", "refuse", "supersede"] = "return"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of the errors that a route answers with, beside those that every route has."""
    every = (401, 403, 422, 503)
    schema = {"$ref": "#/components/schemas/ProblemShape"}
    return {
        status: {"description": _WORDS[status], "content": {"application/problem+json": {"schema": schema}}}
        for status in sorted({*statuses, *every})
    }


_WORDS = {
    400: "The job's status does not allow it",
    401: "Nobody that is known",
    403: "Known, but not allowed",
    404: "No such thing, or not yours",
    409: "Taken, or not possible now",
    413: "Too large",
    415: "Not JSON",
    422: "Malformed; the detail says where",
    503: "The store cannot answer; see Retry-After",
    507: "The store is full; see Retry-After",
}
