"""The shapes of the whole at a glance: numbers, types, workers, the store."""

from __future__ import annotations

from pydantic import Field

from milepost.web.models.shapes import Answer, Asked, Json, Whole


class Failures(Answer):
    """Groups of failures, the largest first; `q` of a group is the filter that selects it."""

    groups: list[dict[str, Json]]
    complete: bool


class Stats(Answer):
    """Numbers over a window; durations and waits are in seconds.

    Counts and steps are exact, and follow an end within a second; half (p50) and nineteen twentieths (p95) are of a random
    few of each ten seconds. A step is at least as long as the server counts: 10 s, in windows over two hours 5 minutes,
    over eight days one day. With a filter, or for who sees only some jobs, the newest 5,000 that match are read.
    `complete` is False when not every end of the window is known.
    """

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
    concurrency: Whole | None = Field(None, ge=1, le=100_000)


class Doctor(Answer):
    """The store, examined."""

    store: str
    version: str
    layout: int
    durability: str
    warnings: list[str]
    details: dict[str, str]
    stopping: list[dict[str, Json]]


class Alive(Answer):
    """The process answers."""

    status: str


class Ready(Answer):
    """The store answers; `warnings` say what is unfit about it."""

    status: str
    store: str
    version: str
    layout: int
    durability: str
    warnings: list[str]


class Purged(Answer):
    """What retention removed."""

    removed: int
