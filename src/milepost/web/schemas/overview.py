"""Schemas of statistics, failure groups, job types, workers and store diagnostics."""

from __future__ import annotations

from pydantic import Field

from milepost.web.schemas.fields import Json, RequestModel, ResponseModel, Whole


class Failures(ResponseModel):
    """Failure groups, the largest first. `q` of a group is the filter that selects its jobs."""

    groups: list[dict[str, Json]]
    complete: bool


class OldestPending(ResponseModel):
    """The pending job that has waited longest: since when it could have started, and why it has not."""

    job_id: str
    job_type: str
    since: str
    activity: str


class Stats(ResponseModel):
    """Statistics over a window, with waits and durations in seconds.

    Counts and steps are exact; p50 and p95 are at most 9 % off. They come from rollups that the store keeps, per minute for
    48 hours and per hour for 60 days, so all servers of a store agree. A step is at least a minute, or an hour in windows
    over two days. With `q`, or for a key that may read only some jobs, the newest 5,000 jobs that match are read instead.
    `complete` is False if not every end of the window is known. `waiting` jobs are pending ones that wait for other jobs, for an
    answer, or are paused or asleep, among the newest 5,000 pending jobs. `oldest_pending` is null if no job could have started; jobs
    whose start time has not come do not count.
    """

    at: str
    window: float
    step: float
    counts: dict[str, dict[str, int]]
    stalled: int
    waiting: int
    oldest_pending: OldestPending | None
    steps: list[dict[str, Json]]
    wait: dict[str, float | int | None]
    duration: dict[str, float | int | None]
    types: list[dict[str, Json]]
    complete: bool


class Workers(ResponseModel):
    """The live workers."""

    workers: list[dict[str, Json]]


class JobType(ResponseModel):
    """A job type. `published` is false if no live worker has published it."""

    name: str
    doc: str
    schema_: dict[str, Json] = Field(alias="schema")
    published: bool
    paused: bool
    limit: int | None
    counts: dict[str, int] | None


class JobTypes(ResponseModel):
    """All job types, by name."""

    job_types: list[JobType]


class LimitBody(RequestModel):
    """The limits of a job type. A `concurrency` of null removes the limit."""

    paused: bool | None = None
    concurrency: Whole | None = Field(None, ge=1, le=100_000)


class Doctor(ResponseModel):
    """The health of the store."""

    store: str
    version: str
    layout: int
    durability: str
    warnings: list[str]
    details: dict[str, str]
    stopping: list[dict[str, Json]]


class Alive(ResponseModel):
    """The process is alive."""

    status: str


class Ready(ResponseModel):
    """The store is reachable. Only admins get its details and, in `warnings`, its problems."""

    status: str
    store: str | None = None
    version: str | None = None
    layout: int | None = None
    durability: str | None = None
    warnings: list[str] | None = None


class Purged(ResponseModel):
    """The number of deleted jobs."""

    removed: int
