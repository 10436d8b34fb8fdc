"""Schemas of jobs, their events and the requests that change them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import datetime
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, create_model

from milepost.core.fields import Field as Row
from milepost.core.job import JobStatus
from milepost.core.options import Option
from milepost.core.record import FIELDS, PUBLIC, JobFields
from milepost.web.schemas.fields import (
    ID_PATTERN,
    TYPE_PATTERN,
    Json,
    Length,
    RequestModel,
    ResponseModel,
    Status,
    When,
    Whole,
    whole,
)

DOCS = {one.name: one.doc for one in PUBLIC}
_PARTS: dict[type, Any] = {}


def _shown(kind: Any) -> Any:
    """Return the type of a record field in a response. A time that cannot be read is null."""
    if kind in (datetime, datetime | None):
        return str | None
    if kind is JobStatus:
        return Status
    if is_dataclass(kind) and isinstance(kind, type):
        if kind not in _PARTS:
            _PARTS[kind] = create_model(kind.__name__, __base__=ResponseModel, __doc__=kind.__doc__, **_columns(kind))
        return _PARTS[kind]
    if get_origin(kind) is tuple:
        return list[_shown(get_args(kind)[0])]  # type: ignore[misc]
    if get_origin(kind) in (Union, UnionType):
        return Union[tuple(map(_shown, get_args(kind)))]  # noqa: UP007 - `|` takes no tuple
    return kind


def _columns(cls: type) -> dict[str, Any]:
    """Return the fields of a dataclass as pydantic takes them."""
    types = get_type_hints(cls)
    return {
        one.name: (_shown(types[one.name]), Field(description=DOCS.get(one.name) if cls is JobFields else None))
        for one in fields(cls)
    }


JobRecord = create_model(
    "JobRecord",
    __base__=ResponseModel,
    __doc__="A job record.",
    **_columns(JobFields),
    stage_progress=(float | None, Field(ge=0, le=1, description="How far the open stage is.")),
    activity=(str, Field(description="What the job does, or why it waits, in one line.")),
)


class JobList(ResponseModel):
    """A page of jobs, newest first. `total` is null if no index counts the query; `total_at_least` is then a lower
    bound.
    """

    jobs: list[JobRecord]  # type: ignore[valid-type] # created from the table of fields
    total: int | None
    total_at_least: int | None = None
    next_cursor: str | None = None
    scanned_all: bool | None = None
    reads: list[str] | None = None


class Done(ResponseModel):
    """Confirmation of an action."""

    message: str
    job_id: str


class EventRecord(ResponseModel):
    """A change of a job. `version` is its sequence number."""

    job_id: str
    version: int
    kind: str
    at: str | None = None
    status: Status | None = None
    progress: float | None = None
    message: str | None = None
    data: dict[str, Json] | None = None


class OutputRecord(ResponseModel):
    """A piece of the output of a job. `offset` is the number of characters that its run wrote before it."""

    text: str
    attempt: int
    segment: int
    offset: int
    starts_over: bool
    position: str


class CancelBody(RequestModel):
    """Why the job is cancelled."""

    reason: str | None = Field(None, max_length=1000)


class AnswerBody(RequestModel):
    """The answer to the question that a job asks under this key. `value` is JSON that fits the question."""

    key: str = Field(min_length=1, max_length=200, examples=["publish"])
    value: Json


class RetryBody(RequestModel):
    """Whether to submit a new job for the failed items only."""

    only_failed: bool = Field(False, description="Submit a new job for the items that failed")
    from_start: bool = Field(
        False, description="Discard the checkpoint, the state, the places of loops and the kept steps"
    )
    dependents: bool = Field(False, description="Put back the jobs that were cancelled because of this one, too")


def _asked(option: Option) -> Any:
    """Return the type of an option in a request."""
    match option.kind:
        case "whole":
            return Annotated[int, Field(ge=option.low, le=option.high), BeforeValidator(whole)]
        case "time":
            return When
        case "duration":
            return Length
        case "choice":
            return Literal[option.choices]
        case "labels":
            return dict[str, str]
        case "groups":
            return Annotated[
                list[Annotated[str, Field(min_length=1, max_length=option.limit)]], Field(max_length=option.high)
            ]
        case "object":
            return dict[str, Json]
        case "amounts":
            return Annotated[dict[str, float], Field(examples=[{"usd": 5}])]
    return Annotated[str, Field(min_length=1, max_length=option.limit)]


def _described(row: Row, option: Option) -> str:
    """Return what an option does, and of which jobs."""
    if option.manual and option.worker:
        return row.doc
    return f"{row.doc} Only of a job that {'its caller' if option.manual else 'a worker'} runs."


_settable: dict[str, Any] = {
    one.name: (_asked(one.option) | None, Field(None, description=_described(one, one.option)))
    for one in FIELDS
    if one.option is not None and one.option.http
}
_Settable = create_model("_Settable", __base__=RequestModel, **_settable)


class SubmitBody(_Settable):  # type: ignore[misc,valid-type] # it is made from the table of fields
    """A job for the workers, or with `run_by` manual a job that its caller runs with `PATCH /api/jobs/{job_id}`."""

    run_by: Literal["worker", "manual"] = "worker"
    job_type: str = Field(pattern=TYPE_PATTERN, examples=["ingestion"])
    params: dict[str, Json] = Field(default_factory=dict, examples=[{"path": "report.pdf"}])
    job_id: str | None = Field(None, pattern=ID_PATTERN)
    on_duplicate: Literal["return", "refuse", "supersede"] = "return"


class UpdateBody(RequestModel):
    """The fields to change. Omitted fields stay as they are."""

    status: Status | None = None
    progress: float | None = None
    message: str | None = Field(None, max_length=100_000)
    error: str | None = Field(None, max_length=100_000)
    result: Json = None


class Attempts(ResponseModel):
    """The failed attempts with their errors, all runs with worker and release, and the retry limits."""

    attempts: list[dict[str, Json]]
    runs: list[dict[str, Json]]
    attempt: int
    max_attempts: int
    crashes: int


class Logs(ResponseModel):
    """Log lines of a job. `cursor` is for the next request, and `more` says that there are more lines."""

    lines: list[dict[str, Json]]
    cursor: int
    more: bool


class BulkBody(RequestModel):
    """An action on jobs selected by `ids` or by a filter `q`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["ids"]}, {"required": ["q"]}]})

    action: Literal["cancel", "retry", "delete"]
    q: str | None = Field(None, max_length=2000, examples=["status:failed type:ingestion"])
    ids: list[Annotated[str, Field(max_length=128)]] | None = Field(None, max_length=1000)
    dry_run: bool = False
    limit: Whole = Field(1000, ge=1, le=1000)
    cursor: str | None = Field(None, max_length=400)


class BulkDone(ResponseModel):
    """The outcome for each job; with `dry_run`, how many jobs match and how many would change."""

    action: str
    done: int | None = None
    outcomes: list[dict[str, str]] | None = None
    next_cursor: str | None = None
    dry_run: bool | None = None
    matching: int | None = None
    eligible: int | None = None
    exact: bool | None = None
