"""The options of the calls that make jobs, for type checkers. Written by scripts/fields.py; do not edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from milepost.core.job import Job
    from milepost.core.options import Awaited


class SubmitFields(TypedDict, total=False):
    """What a submit sets in the record of a job for workers."""

    metadata: Mapping[str, Any] | None
    """JSON of the submitter, which milepost does not interpret."""
    labels: Mapping[str, str] | None
    """Up to 16 pairs of text to filter by."""
    priority: int | None
    """From -100 to 100; jobs with a higher one start first."""
    max_attempts: int | None
    """How many attempts the job may have."""
    not_before: datetime | None
    """The earliest start."""
    not_after: datetime | None
    """The latest first start; a job that has not started by then fails."""
    parent_id: str | None
    """The id of the job that this one belongs to."""
    group: str | None
    """The group that the job is a member of."""
    after: Sequence[str | Job | Awaited] | None
    """What the job follows, each as `job:ID`, `children:ID` or `group:NAME`. It starts when none of these has an open member."""
    queue: str | None
    """Which workers serve the job; by default those that serve its type."""
    limit_key: str | None
    """What a limit counts the job under; by default its type."""
    partition: str | None
    """A unit that shares capacity with others, for example a tenant: partitions take turns, and a limit may hold for each."""
    unique_key: str | None
    """At most one pending or running job has this key."""
    trace: str | None
    """The W3C trace context of the submit."""
    delay: float | timedelta | str | None
    """The time from the submit to the earliest start; sets `not_before`."""
    expires_in: float | timedelta | str | None
    """The time from the submit to the latest first start; sets `not_after`."""
    timeout: float | timedelta | str | None
    """The time limit of one attempt."""
    budget: Mapping[str, float] | None
    """The most that all runs of the job may spend (`run.add_usage`), as `{"usd": 5}`."""
    on_budget: Literal["fail", "ask"] | None
    """What happens once the budget is spent: the job fails, or is suspended and asks a person to raise the budget."""
    on_lost: Literal["retry", "fail"] | None
    """What happens when the process of a run dies."""
    on_failure: Literal["cancel", "run"] | None
    """What happens to the job when one that it follows has failed, was cancelled or was deleted."""
    children: Literal["cancel", "keep"] | None
    """What happens to the open children of the job, made by its run, when it has failed, was cancelled or was deleted."""


class CreateOptions(TypedDict, total=False):
    """What `create_job` sets beside the metadata."""

    labels: Mapping[str, str] | None
    """Up to 16 pairs of text to filter by."""
    parent_id: str | None
    """The id of the job that this one belongs to."""
    group: str | None
    """The group that the job is a member of."""
    after: Sequence[str | Job | Awaited] | None
    """What the job follows, each as `job:ID`, `children:ID` or `group:NAME`. It starts when none of these has an open member."""
    unique_key: str | None
    """At most one pending or running job has this key."""
    trace: str | None
    """The W3C trace context of the submit."""
    on_failure: Literal["cancel", "run"] | None
    """What happens to the job when one that it follows has failed, was cancelled or was deleted."""
    stale_after: float | timedelta | str | None
    """The time without an update after which a manual job counts as stalled."""
    on_stale: Literal["flag", "fail"] | None
    """What happens then."""
