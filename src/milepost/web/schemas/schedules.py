"""Schemas of schedules."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from milepost.web.schemas.fields import TYPE_PATTERN, Json, RequestModel, ResponseModel


class ScheduleBody(RequestModel):
    """When to make jobs of which type. Either `cron`, in the local time of `tz`, or `every`, an interval in seconds.

    `options` are those of a submit, for example priority, queue or budget, except for those that belong to one job: job_id,
    on_duplicate, not_before, not_after, after, group and parent_id.
    """

    job_type: str = Field(pattern=TYPE_PATTERN, examples=["reindex"])
    cron: str | None = Field(None, max_length=200, examples=["0 3 * * *"])
    every: float | None = Field(None, ge=1, le=366 * 86_400)
    tz: str = Field("UTC", min_length=1, max_length=100, examples=["Europe/Berlin"])
    catch_up: Literal["last", "none", "all"] = "last"
    overlap: Literal["skip", "queue", "allow"] = "skip"
    params: dict[str, Json] = Field(default_factory=dict)
    labels: dict[str, str] | None = None
    options: dict[str, Json] = Field(default_factory=dict, max_length=20, examples=[{"priority": 5}])


class ScheduleRecord(ResponseModel):
    """A schedule. `paused` is why it makes no jobs: `user`, `undeclared` or `key_ended`. `upcoming` are its next ticks."""

    name: str
    job_type: str
    cron: str | None
    every: float | None
    tz: str
    catch_up: str
    overlap: str
    next_at: str | None
    last_at: str | None
    last_job_id: str | None
    fired: int
    skipped: int
    paused: str | None
    release: str | None
    declared_at: str | None
    overridden: bool
    created_at: str | None
    created_by: str | None
    labels: dict[str, str]
    params: dict[str, Json]
    upcoming: list[str]


class ScheduleList(ResponseModel):
    """All schedules that the caller may see, by name."""

    schedules: list[ScheduleRecord]
