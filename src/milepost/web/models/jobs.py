"""The shapes of jobs, of what is asked of them, and of what is told of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from milepost.web.models.shapes import ID_PATTERN, TYPE_PATTERN, Answer, Asked, Json, Status, When, Whole


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
    expected_start: dict[str, str] | None
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
    """A job for the workers; or, with `driver` caller, one that its caller drives with `PATCH /api/jobs/{job_id}`."""

    driver: Literal["worker", "caller"] = "worker"
    stale_after: float | None = Field(None, gt=0, le=365 * 86400, description="Only of a job that its caller drives")
    on_stale: Literal["flag", "fail"] | None = None
    parent_id: str | None = Field(None, max_length=128)
    on_lost: Literal["retry", "fail"] | None = None
    job_type: str = Field(pattern=TYPE_PATTERN, examples=["ingestion"])
    params: dict[str, Json] = Field(default_factory=dict, examples=[{"path": "report.pdf"}])
    metadata: dict[str, Json] | None = None
    labels: dict[str, str] | None = None
    job_id: str | None = Field(None, pattern=ID_PATTERN)
    priority: Whole = Field(0, ge=-100, le=100)
    not_before: When | None = None
    not_after: When | None = None
    max_attempts: Whole | None = Field(None, ge=1, le=1000)
    timeout: float | None = Field(None, gt=0, le=365 * 86400)
    unique_key: str | None = Field(None, min_length=1, max_length=512)
    on_duplicate: Literal["return", "refuse", "supersede"] = "return"


class UpdateBody(Asked):
    """What a caller says of its own job; what is left out stays."""

    status: Status | None = None
    progress: float | None = None
    message: str | None = Field(None, max_length=100_000)
    error: str | None = Field(None, max_length=100_000)
    result: Json = None


class Attempts(Answer):
    """The attempts that ended badly, each with its failure, and the budgets."""

    attempts: list[dict[str, Json]]
    attempt: int
    max_attempts: int
    crashes: int


class Logs(Answer):
    """Lines of a job's log; `cursor` goes into the next call, `more` says that there are more now."""

    lines: list[dict[str, Json]]
    cursor: int
    more: bool


class BulkBody(Asked):
    """An action on many jobs: by `ids`, or by a filter `q`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["ids"]}, {"required": ["q"]}]})

    action: Literal["cancel", "retry", "delete"]
    q: str | None = Field(None, max_length=2000, examples=["status:failed type:ingestion"])
    ids: list[Annotated[str, Field(max_length=128)]] | None = Field(None, max_length=1000)
    dry_run: bool = False
    limit: Whole = Field(1000, ge=1, le=1000)
    cursor: str | None = Field(None, max_length=400)


class BulkDone(Answer):
    """What became of each job; of a dry run, how many match and how many the action would change."""

    action: str
    done: int | None = None
    outcomes: list[dict[str, str]] | None = None
    next_cursor: str | None = None
    dry_run: bool | None = None
    matching: int | None = None
    eligible: int | None = None
    exact: bool | None = None
