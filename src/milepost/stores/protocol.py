"""The interface of a store.

A store applies changes atomically and decides nothing. Every method is `async def`. In a blocking store no coroutine
ever suspends, so `run_sync` can run it.

Contract of all methods:

* The store's clock counts. If the system clock steps back by up to `CLOCK_LEAD`, the clock of a store object stands
  still; if it steps back further, it follows.
* The fence of a new lease is greater than every earlier fence of the same job, in any case. Fences of different jobs
  need not be in order.
* `apply` is atomic for each `Write`: the record, its index entries and the event change together or not at all.
* Repeating a `Write` with the same operation id has no second effect and returns the first result.
* `counts` and `count` are exact at any moment: they agree with the records of one instant.
* Values of `large.LARGE` above 64 KiB are stored apart from their record, in the same step. `get`, and the answer
  to the write of a job, contain them; claims, lists and sweeps contain markers.
* Unknown fields are kept. Text is UTF-8 without newlines.
* Errors: StoreUnavailableError if nothing was written, OutcomeUnknownError if that is not known, StoreFullError,
  LayoutMismatchError.

The indexes, derived from the fields of a record and updated in the same step, independent of its status:

=============  ===============================================================================================
index          contains the record if
=============  ===============================================================================================
type x status  always; ordered by (`created`, id); counted exactly
label          for each pair in `labels`, indexed fields included; ordered by (`created`, id); counted exactly
stalled        `stalled` is not empty; counted exactly
claimable      `ready` is not empty, `core.placement.starts_at` is a time that has come, and no draining lease has this
               id or its unique key; by that name (`core.limits.ready_name`), then `priority` (higher first), then
               (`created`, id)
scheduled      as claimable, but that time is in the future; by the queue alone
lease          `lease` exists; ordered by it; counted by `slot` and by its key, each with the draining leases, and by
               `worker`
deadline       `not_after` exists, and neither `started` nor `completed`; ordered by `not_after`
stale          `stale` exists; ordered by it
unique key     `unique_key` is not empty: the record with it that was created last, regardless of the clock
ended          `completed` exists; ordered by it
member         for each of `core.placement.memberships`; by group and state; counted exactly
held           `held` is not empty; by that group, ordered by (`created`, id)
=============  ===============================================================================================

A group closes when its last open member ends, is removed, or stops. If jobs wait for it, that step adds it to the groups
that `sweep` looks at, and `WriteResult.closed` names it: the store then calls `release_held` of `stores.held_jobs`. If a
member is removed while the `after` of any record names its group, its status and id are kept for
`core.placement.Members`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from milepost.core.errors import StoreError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.limits import KEEP, Keep, Limit
from milepost.core.rate import Rate
from milepost.core.record import REPORTED
from milepost.core.rollups import Rollups
from milepost.core.transitions.operations import Change
from milepost.stores.key_values import KeyValue as KeyValue
from milepost.stores.key_values import KeyValueStore as KeyValueStore
from milepost.stores.usage_ledger import UsageLedger

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

    A job must have one of the `types`, one of the `statuses` and all `labels`; with `stalled` it must be flagged.
    """

    types: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stalled: bool = False
    created_after: int | None = None
    created_before: int | None = None

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


class Store(KeyValueStore, UsageLedger, Protocol):
    """A store of jobs."""

    blocking: bool
    """Whether the store is blocking: then none of its coroutines ever suspends."""

    url: str
    """The URL with the namespace and without passwords."""

    shared: bool
    """Whether other processes can use the same jobs."""

    report_interval: float
    """The pace of progress reports in seconds. The heartbeat uses it unless MILEPOST_HEARTBEAT is set to another value."""

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        """Apply the writes in order, then claim, in one round trip. Then release the jobs that waited for closed groups."""

    async def heartbeat(
        self, writes: Sequence[Write], leases: Sequence[tuple[str, str]], micros: int | None
    ) -> tuple[list[WriteResult], list[str]]:
        """Apply the writes and renew the leases in one round trip."""

    async def renew(self, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
        """Renew leases, given as (job id, token), for `micros` from now, even expired ones; None only checks them.

        Return ``"live"``, ``"stopping"`` (a draining lease, renewed as well) or ``"lost"`` for each. No version changes.
        """

    async def get(self, job_id: str) -> Job | None:
        """Return the job of an id, or None. `waiting_for` is set if a draining lease keeps it from being claimed."""

    async def select(self, select: Select, limit: int, after: Position | None = None) -> list[Job]:
        """Return the newest `limit` matching jobs after a position, ordered by `created` and id, both descending."""

    async def oldest(self, status: str, limit: int) -> list[Job]:
        """Return the `limit` oldest jobs of a status, by `created` and id. Reads at most `limit` entries of each type."""

    async def count(self, select: Select) -> int | None:
        """Return the exact number of matches, or None if no index has it (a creation time; labels with other terms)."""

    async def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of jobs by (type, status), without zeros."""

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """Return the kept events of a job with a version above `after`, oldest first."""

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        """Return the events of all jobs after a position; wait up to `timeout` seconds for the first one.

        With None, return no events and the current position. ``"0"`` is the beginning of the kept events.

        No event is lost, and the events of one job come in the order of its versions. All events before a position have
        been returned; events after it may be returned again. There is no order between jobs. Readers drop repeats by id
        and version, see `events.SeenEvents`.
        """

    async def held_by(self, group: str, limit: int) -> list[str]:
        """Return the ids of the first `limit` jobs that this group holds, by `created` and id."""

    async def open_members(self, group: str, limit: int) -> list[str]:
        """Return the ids of up to `limit` open members of a group of several members."""

    async def member_counts(self, groups: Sequence[str]) -> list[dict[str, int]]:
        """Return the exact numbers of the members of each group by MEMBER_STATES, without zeros, in one round trip."""

    async def wait_for_work(self, worker: str, queues: Sequence[str], timeout: float) -> bool | Literal["worker"]:
        """Wait until one of the queues may have a claimable job, a run of the worker is to stop, or it is woken.

        Return False after `timeout` seconds, ``"worker"`` if the worker itself was woken or a run of it is to stop, and
        True for a claimable job or for no known reason.
        """

    async def wake(self, worker: str) -> None:
        """Wake a worker that waits for work, from any process."""

    async def sweep(
        self, *, lease: float, interval: float, limit: int = 200, task_queue: str | None = None, unreached: float = 0.0
    ) -> SweepResult:
        """Find what is due, up to `limit` items of each kind. Concurrent sweeps are harmless: every change is guarded.

        Skipped if the last sweep is less than half the interval ago. `stores.sweep.hold_of` decides which leases are due: none
        for a whole lease after an outage, then those that were not renewed since. If the last sweep is ahead of the
        clock by more than `CLOCK_LEAD`, the clock was set back: leases more than `CLOCK_LEAD` and more than `lease` in
        the future move back with it, but not below `lease` from now.

        Jobs for a task queue other than `task_queue` are due `unreached` seconds later, so that its own processes are first.
        Jobs are released that wait for a closed group because the process that closed it died.
        """

    async def purge(self, *, before: int, limit: int = 500) -> PurgeResult:
        """Remove up to `limit` jobs that ended before a time in microseconds.

        As with a delete, their events, large values and kept results are removed in the same step. A job that a run made
        goes with its root, and a member of a group stays while an open job waits for it; see `stores.retention`. One call
        passes over about `KEPT_PER_REMOVED` times `limit` jobs that stay, at most. Call it again with the same `before`
        while the result says `more`: each job that stays is passed over once.
        """

    async def rollups(self, since: int, *, hourly: bool = False) -> Rollups:
        """Return the exact ends of jobs in the minutes (or hours) since a time in microseconds, by type and queue.

        An end is counted in the step that ends the job, and stays counted when the job is retried or removed. Minutes are
        kept for 48 hours and hours for 60 days; 5 MB at most, so with very many types the oldest are deleted earlier.
        """

    async def limits(self) -> dict[str, Limit]:
        """Return the limits of limit keys, by key."""

    async def set_limit(
        self,
        key: str,
        running: int | Keep | None,
        paused: bool | Keep,
        per_partition: int | Keep | None = None,
        rate: Rate | Keep | None = KEEP,
    ) -> None:
        """Limit a key for all workers, or pause the type of that name, effective immediately; running jobs continue.

        KEEP leaves a value as it is, whatever others set meanwhile.
        """

    async def close_gate(self, key: str, micros: int) -> None:
        """Let no job with a limit key start for `micros` from now, or for longer if it is closed for longer; 0 opens it."""

    async def held_slots(self) -> dict[str, int]:
        """Return the number of leases, live and draining, by slot and by limit key, see `core.limits`."""

    async def claimable_jobs(self) -> dict[str, int]:
        """Return how many jobs are claimable under each limit key that has a setting, see `core.limits`; none if there are none.

        Delayed jobs are counted once a worker that serves their queue has looked for jobs after their time.
        """

    async def draining_leases(self) -> list[tuple[str, str, int]]:
        """Return the draining leases as (job id, token, expiry in us)."""

    async def check_health(self) -> HealthReport:
        """Check the server: version, durability, eviction, role, layout."""

    async def now(self) -> int:
        """Return the store's clock, in microseconds since 1970."""

    async def close(self) -> None:
        """Close the connections; the next use opens new ones."""

    def with_blocking(self, *, blocking: bool) -> Store:
        """Return a blocking or an async store on the same jobs, the same object at each call.

        It has its own connections, so that a thread can use a blocking store beside an async one.
        """
