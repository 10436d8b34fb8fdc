"""The shapes of requests and answers, as OpenAPI shows them. Requests are checked by them; answers are written as bytes
elsewhere, and tests hold the two together.
"""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["pending", "running", "completed", "failed", "cancelled"]
Ended = Literal["completed", "failed", "cancelled"]
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
    """A job for the workers; or, with `driver` caller, one that its caller drives with `PATCH /api/jobs/{job_id}`."""

    driver: Literal["worker", "caller"] = "worker"
    stale_after: float | None = Field(None, gt=0, le=365 * 86400, description="Only of a job that its caller drives")
    on_stale: Literal["flag", "fail"] | None = None
    parent_id: str | None = Field(None, max_length=128)
    on_lost: Literal["retry", "fail"] | None = None
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


class UpdateBody(Asked):
    """What a caller says of its own job; what is left out stays."""

    status: Status | None = None
    progress: float | None = None
    message: str | None = Field(None, max_length=100_000)
    error: str | None = Field(None, max_length=100_000)
    result: Json = None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The documentation of the errors that a route answers with, beside those that every route has."""
    every = (401, 403, 422, 503)
    return {
        status: {
            "description": _WORDS[status],
            "content": {
                "application/problem+json": {
                    "schema": _PROBLEM,
                    "example": {
                        "type": "about:blank",
                        "title": HTTPStatus(status).phrase,
                        "status": status,
                        "detail": _WORDS[status],
                    },
                }
            },
        }
        for status in sorted({*statuses, *every})
    }


# In full at each place: a reference would hang in the air in an application whose OpenAPI is not made by us.
_PROBLEM = ProblemShape.model_json_schema()
_WORDS = {
    400: "The job's status does not allow it",
    401: "Nobody that is known",
    403: "Known, but not allowed",
    404: "No such thing, or not yours",
    409: "Taken, or not possible now",
    413: "Too large",
    415: "Not JSON",
    501: "Not installed; the detail names the pip line",
    422: "Malformed; the detail says where",
    503: "The store cannot answer; see Retry-After",
    507: "The store is full; see Retry-After",
}


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

    action: Literal["cancel", "retry", "delete"]
    q: str | None = Field(None, max_length=2000, examples=["status:failed type:ingestion"])
    ids: list[Annotated[str, Field(max_length=128)]] | None = Field(None, max_length=1000)
    dry_run: bool = False
    limit: int = Field(1000, ge=1, le=1000)
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


class Failures(Answer):
    """Groups of failures, the largest first; `q` of a group is the filter that selects it."""

    groups: list[dict[str, Json]]
    complete: bool


class Stats(Answer):
    """Numbers over a window; durations and waits are in seconds."""

    at: str
    window: float
    step: float
    counts: dict[str, dict[str, int]]
    stalled: int
    steps: list[dict[str, Json]]
    wait: dict[str, float | int | None]
    duration: dict[str, float | int | None]
    types: list[dict[str, Json]]
    complete: bool


class Workers(Answer):
    """The workers that were seen lately."""

    workers: list[dict[str, Json]]


class JobTypeShape(Answer):
    """A type of jobs. `published` is False for one that no worker has told of."""

    name: str
    doc: str
    schema_: dict[str, Json] = Field(alias="schema")
    published: bool
    paused: bool
    limit: int | None
    counts: dict[str, int] | None


class JobTypes(Answer):
    """All types, by name."""

    job_types: list[JobTypeShape]


class LimitBody(Asked):
    """How a type is limited; `concurrency` null takes the limit away."""

    paused: bool | None = None
    concurrency: int | None = Field(None, ge=1, le=100_000)


class SessionBody(Asked):
    """A key to sign in with."""

    key: str = Field(min_length=1, max_length=200)


class SessionShape(Answer):
    """Who is asking, and what they may do."""

    id: str | None
    scopes: list[str]
    labels: dict[str, str]
    auth: str


class KeyBody(Asked):
    """A new key. `expires_in` is in seconds; with `labels` it sees only jobs that carry them."""

    name: str = Field(min_length=1, max_length=200)
    scopes: list[str] = Field(min_length=1, max_length=4, examples=[["jobs:read", "jobs:write"]])
    labels: dict[str, str] | None = None
    expires_in: float | None = Field(None, gt=0, le=100 * 366 * 86400)


class KeyShape(Answer):
    """A key without its secret."""

    id: str
    name: str
    scopes: list[str]
    labels: dict[str, str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewKey(KeyShape):
    """A key with its secret, which is shown this once."""

    secret: str


class KeyList(Answer):
    """All keys."""

    keys: list[KeyShape]


class ShareBody(Asked):
    """How long a link holds, in seconds, and whether it may cancel."""

    expires_in: float = Field(7 * 86400.0, gt=0, le=30 * 86400)
    may_cancel: bool = False


class Share(Answer):
    """A link to one job."""

    token: str
    path: str
    expires_at: str


class Doctor(Answer):
    """The store, examined."""

    store: str
    version: str
    layout: int
    durability: str
    warnings: list[str]
    details: dict[str, str]
    stopping: list[dict[str, Json]]


class Purged(Answer):
    """What retention removed."""

    removed: int


class HookBody(Asked):
    """A new webhook, for the ends of jobs that a filter selects."""

    url: str = Field(min_length=1, max_length=2000, examples=["https://example.org/hooks/milepost"])
    events: list[Ended] = Field(default_factory=lambda: list(get_args(Ended)), min_length=1, max_length=3)
    q: str = Field("", max_length=2000)


class HookShape(Answer):
    """A webhook without its secret; `waiting` messages are still to be sent."""

    id: str
    url: str
    events: list[str]
    q: str
    created_at: str
    disabled: str | None
    waiting: int | None = None


class HookList(Answer):
    """All webhooks."""

    webhooks: list[HookShape]


class NewHook(HookShape):
    """A webhook with the secret that signs its messages, which is shown this once."""

    secret: str


class HookTested(Answer):
    """How the receiver answered."""

    taken: bool
    status: int | None
    problem: str


class ReplayBody(Asked):
    """Which ends are sent again, at most 1,000 a call."""

    q: str = Field("created:1d", max_length=2000)
    cursor: str | None = Field(None, max_length=400)


class HookReplayed(Answer):
    """How many were queued."""

    queued: int
    next_cursor: str | None
