"""The values that callers give to a store and get from it; `protocol` has its methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from milepost.core.errors import InvalidInputError, StoreError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.record import REPORTED
from milepost.core.serialization import validate_name
from milepost.core.transitions.change import Change

LAYOUT = 1
"""The version of the stored layout; a release reads its own and the one before."""

INVALID_VALUE_ERRORS = (ValueError, TypeError, LookupError, AssertionError, OverflowError)
"""What a write raises whose values cannot be stored."""
MEMBER_STATES = ("", "completed", "failed", "cancelled", "closed")
"""The second values of `core.placement.memberships`: of an open member, of ended ones, and of a closed batch."""
LIVE_FIELDS = frozenset(REPORTED) - {"stalled"} | {"version", "updated", "recent_ops"}
"""The live part of a record: the fields that progress reports change, several times per second. A store may keep it apart
from the other fields. Every change takes the next `version` from there, so that no number is used twice."""

MAX_CHARACTERS = 2 * 1024 * 1024
"""The most characters in one request, not counting its first write. Results may have 1 MB, and a request must get
through a slow connection before leases expire."""


class Write(NamedTuple):
    """One change of one job."""

    job_id: str
    change: Change
    answer: bool = True
    """Whether to return the job of an accepted change. That of a refused one is always returned."""

    @property
    def size(self) -> int:
        """Return the number of characters of its values."""
        return sum(map(len, filter(None, self.change.values)))


class WriteResult(NamedTuple):
    """The result of a `Write`: the index of the applied branch, or -1, and the current job. See also `NOT_WRITTEN`.

    `job` is None if there is no record, or if an accepted change did not ask for it. `key_owner_id` is the id of the
    other job with the unique key, if that is why the change was refused. `wait` is the number of microseconds until the
    change is accepted, if there were too many requests within a minute. `closed` are the groups that the change closed.
    """

    branch: int
    job: Job | None
    repeated: bool = False
    key_owner_id: str | None = None
    wait: int = 0
    closed: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Return whether a branch was applied, now or earlier by the same operation."""
        return self.branch >= 0


NOT_WRITTEN = WriteResult(-2, None)
"""The result of a write of a heartbeat or a sweep that was not tried to the end, since another transaction has locked the record."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's request for jobs of the queues that it serves, at most as many as `starts`.

    `queues` maps the name of a queue to the most leases that its type may have, None for no limit; a limit or a pause set
    with `set_limit` overrides it. With `job_id` only that job is claimed. `stores.claim_order` is the order of the jobs.

    The last claim of a worker is answered again if it is repeated with the same operation id within a minute. `number`
    counts the claims of a worker: a claim with a lower number than the last one is a late duplicate and gets no jobs.
    """

    worker: str
    queues: Mapping[str, int | None]
    starts: tuple[Change, ...]
    operation_id: str
    job_id: str | None = None
    number: int = 0


class ApplyResult(NamedTuple):
    """The results of `apply`: one for each write, in order; the claimed jobs; when the next claim is worthwhile (us):
    a scheduled job is due, or a gate or a rate that kept jobs of these queues from starting lets them start.

    `now` is the store's clock at the claim, to which `next_due` refers.
    """

    outcomes: list[WriteResult]
    claimed: list[Job]
    next_due: int | None
    now: int = 0


@dataclass(frozen=True, slots=True)
class Select:
    """A selection of jobs that indexes can answer; empty selects all. Times are microseconds: created in [after, before).

    A job must have one of the `types`, one of the `statuses` and all `labels`; with `stalled` it must be flagged. Raises
    InvalidInputError for text that no job can have and some stores refuse, so that all stores answer alike.
    """

    types: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stalled: bool = False
    created_after: int | None = None
    created_before: int | None = None

    def __post_init__(self) -> None:
        for name in self.types:
            validate_name(name, "job_type")
        for key, value in self.labels:
            validate_name(key, "labels")
            validate_name(value, key[1:] if key.startswith(":") else f"labels.{key}")

    @property
    def is_counted(self) -> bool:
        """Return whether a counter has the exact number of matches.

        There is none for creation times, nor for more than one of these: a label, stalled, types with statuses.
        """
        terms = len(self.labels) + self.stalled + bool(self.types or self.statuses)
        return self.created_after is None and self.created_before is None and terms <= 1


class Position(NamedTuple):
    """A position in a list, which is ordered newest first: the `created` and the id of a job."""

    created: int
    job_id: str


class DueItem(NamedTuple):
    """An item that a sweep found due. `kind` is lease, stopping, deadline or stale.

    For a lease, `sibling_leases` is the number of live leases of its worker, including this one. For a draining lease
    (stopping), `token` is its token, and `job` may be None.
    """

    kind: str
    job_id: str
    job: Job | None
    token: str = ""
    sibling_leases: int = 1


class SweepResult(NamedTuple):
    """What a sweep found.

    `closing` are the closed groups that jobs wait for; the store has released these jobs.
    `skipped`: another sweep ran within the interval. `held`: no lease is due, because no sweep ran for half a lease and
    owners must be able to renew first. `more`: the limit of some kind was reached.
    """

    due: list[DueItem]
    skipped: bool = False
    held: bool = False
    more: bool = False
    closing: tuple[str, ...] = ()


class PurgeResult(NamedTuple):
    """How many jobs a purge removed, and whether more may be due because it reached one of its bounds."""

    removed: int
    more: bool


class HealthReport(NamedTuple):
    """The health of a store: `kind` and `version` of the server, its `layout`, its durability, and warnings."""

    kind: str
    version: str
    layout: int
    durability: str
    warnings: tuple[str, ...]
    details: Mapping[str, str] = {}

    def require_no_warnings(self) -> None:
        """Raise StoreError if there are warnings, for MILEPOST_STRICT."""
        if self.warnings:
            raise StoreError(f"MILEPOST_STRICT: the store fails its health check: {', '.join(self.warnings)}")


class FeedEvents(NamedTuple):
    """Events of the namespace after a position, oldest first, and the position after them.

    `lost` is True if events after the given position are no longer kept.
    """

    events: list[Event]
    position: str
    lost: bool = False


class KeyValue(NamedTuple):
    """A stored value with its version, which the next `kv_put` must name."""

    key: str
    value: str
    version: int


def validate_entry(key: str, value: str) -> None:
    """Check the texts of an entry. Raises InvalidInputError for a NUL (PostgreSQL) or a lone surrogate (all but memory),
    which not every store can keep.
    """
    for field, text in (("key", key), ("value", value)):
        if "\0" in text:
            raise InvalidInputError(field, "contains a NUL character; remove it")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInputError(field, "contains a lone surrogate; decode the text with errors='replace'") from None
