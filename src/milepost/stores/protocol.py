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
* Values of `core.record_codec.LARGE` above 64 KiB are stored apart from their record, in the same step. `get`, and the answer
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

from collections.abc import Sequence
from typing import Literal, Protocol

from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.ledger import Book
from milepost.core.limits import KEEP, Keep, Limit, Rate
from milepost.core.rollups import Rollups
from milepost.stores.store_values import INVALID_VALUE_ERRORS as INVALID_VALUE_ERRORS
from milepost.stores.store_values import LAYOUT as LAYOUT
from milepost.stores.store_values import LIVE_FIELDS as LIVE_FIELDS
from milepost.stores.store_values import MAX_CHARACTERS as MAX_CHARACTERS
from milepost.stores.store_values import MEMBER_STATES as MEMBER_STATES
from milepost.stores.store_values import NOT_WRITTEN as NOT_WRITTEN
from milepost.stores.store_values import ApplyResult as ApplyResult
from milepost.stores.store_values import Claim as Claim
from milepost.stores.store_values import DueItem as DueItem
from milepost.stores.store_values import FeedEvents as FeedEvents
from milepost.stores.store_values import HealthReport as HealthReport
from milepost.stores.store_values import KeyValue as KeyValue
from milepost.stores.store_values import Position as Position
from milepost.stores.store_values import PurgeResult as PurgeResult
from milepost.stores.store_values import Select as Select
from milepost.stores.store_values import SweepResult as SweepResult
from milepost.stores.store_values import Write as Write
from milepost.stores.store_values import WriteResult as WriteResult


class KeyValueStore(Protocol):
    """Small named values: API keys, workers, type schemas, run history, webhooks, idempotency keys."""

    async def kv_get(self, key: str) -> KeyValue | None:
        """Return the value of a key, or None if it does not exist or has expired."""

    async def kv_put(self, key: str, value: str, *, version: int | None = None, ttl: float | None = None) -> int | None:
        """Set a value if the key has this version (0: it does not exist; None: any).

        Return the new version, or None if the key has another one. `ttl` is in seconds from now. Raises InvalidInputError
        as `validate_entry`.
        """

    async def kv_delete(self, key: str) -> bool:
        """Delete a key and return whether it existed."""

    async def kv_scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[KeyValue]:
        """Return the first `limit` values whose keys start with `prefix` and follow `after`, ordered by key (code points).

        Fewer than `limit` are all that there are.
        """


class Store(KeyValueStore, Protocol):
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

    async def usage(self, books: Sequence[str]) -> list[Book]:
        """Return the amounts in millionths of these books, of one instant, in order; empty for one that does not exist.

        The store adds to them in the step that changes the `usage` of a record, and they stay when the record is
        removed. The book ``tree:ID`` is removed with the record of ID, by the next purge at the latest. See `core.ledger`.
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
