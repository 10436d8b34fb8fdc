"""What a store is: the verbs that the manager, the runs, the workers and the sweeper need, and nothing else.

A store applies Changes atomically and decides nothing. Every method is `async def` over a port that exists in a
blocking and in an asynchronous edition; over a blocking port a coroutine never suspends, and `drive` steps it.

Contract, for all that follows:

* The store's clock decides. It never goes back within one store object; where the clock behind it does, it stands.
* `apply` is atomic for each `Write`: the record, everything in `Placement` and the event move together or not at all.
* Repeating a `Write` with the same operation id has no second effect and gives the first answer.
* Fields that are not known are kept. Text is UTF-8 without newlines.
* Errors: StoreUnavailable when nothing was written, OutcomeUnknown when that cannot be known, StoreFull, LayoutMismatch.

`Placement`, derived from a record's fields and kept in the same step, whatever the statuses are called:

=============  ===============================================================================================
index          holds the record when
=============  ===============================================================================================
type x status  always; ordered by (`created`, id); counted exactly
label          for each pair in `labels`; ordered by (`created`, id); counted exactly
stalled        `stalled` is not empty; counted exactly
claimable      `queue` is not empty, `not_before` is due, and no stopping lease has this id or its unique key;
               by queue name, then `priority` (higher first), then (`created`, id)
scheduled      as claimable, but `not_before` is still ahead
lease          `lease` is there, ordered by it; counted by `slot` (with the stopping leases of that slot) and by `worker`
deadline       `not_after` is there, and neither `started` nor `completed`, ordered by `not_after`
stale          `stale` is there, ordered by it
unique key     `unique_key` is not empty: the newest record with it
ended          `completed` is there, ordered by it
=============  ===============================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from milepost.core.change import Change
from milepost.core.events import Event
from milepost.core.job import Job

LAYOUT = 1
"""The version of what stores write; a release reads its own and the one before."""


class Write(NamedTuple):
    """One change for one id."""

    job_id: str
    change: Change
    answer: bool = True
    """Whether an accepted change is to answer with the record. A refused one always does."""


class Outcome(NamedTuple):
    """What became of a `Write`: the index of the case that was performed, or -1, and the job as it is.

    `job` is None when there is no record, and for an accepted change when no answer was asked for.
    `holder` is the id of the other job that has the unique key, where that is why the change was refused.
    """

    case: int
    job: Job | None
    repeated: bool = False
    holder: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether a case was performed, now or by the same operation before."""
        return self.case >= 0


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's wish for jobs: as many as it gives `starts`, of the queues that it serves.

    `queues` maps a queue name to the most leases that its slot may have, None for no limit; a limit or a pause set
    with `set_limit` comes before. With `job_id` only that job is claimed. The claim is answered again when it is
    repeated with the same `op` within a minute.
    """

    worker: str
    queues: Mapping[str, int | None]
    starts: tuple[Change, ...]
    op: str
    job_id: str | None = None


class Applied(NamedTuple):
    """The outcomes in the order of the writes; the claimed jobs; when the next scheduled job of the queues is due (us).

    `now` is the store's clock then, of a claim: whoever waits for `next_due` has another one.
    """

    outcomes: list[Outcome]
    claimed: list[Job]
    next_due: int | None
    now: int = 0


@dataclass(frozen=True, slots=True)
class Select:
    """Which jobs, as far as indexes answer it. Empty: all. Times are microseconds: created in [after, before).

    `types` and `statuses` are alternatives; `labels` must all hold; `stalled` True wants those flagged.
    """

    types: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stalled: bool = False
    created_after: int | None = None
    created_before: int | None = None


class Position(NamedTuple):
    """A place in the order of a list, newest first: a job's `created` and its id."""

    created: int
    job_id: str


class Due(NamedTuple):
    """Something whose time has come. `kind` is lease, stopping, deadline or stale.

    For a lease: `job` is the running one, and `company` the number of live leases that its worker has, this one included.
    For a stopping lease `token` is its token, and `job` may be None.
    """

    kind: str
    job_id: str
    job: Job | None
    token: str = ""
    company: int = 1


class Pass(NamedTuple):
    """What a sweep found. `skipped`: another sweep was here within the interval. `held`: leases are left alone, because
    nobody swept for half a lease and living owners must renew first. `more`: the limit was reached."""

    due: list[Due]
    skipped: bool = False
    held: bool = False
    more: bool = False


class Fitness(NamedTuple):
    """How a store is: `kind` and `version` of the server, its `layout`, and what is wrong with it, in plain words."""

    kind: str
    version: str
    layout: int
    durability: str
    warnings: tuple[str, ...]
    details: Mapping[str, str] = {}


class Item(NamedTuple):
    """A value on the shelf with the version that a next `put` must name."""

    key: str
    value: str
    version: int


class FeedEvents(NamedTuple):
    """Events of the namespace after a position, oldest first, and the position after them.

    `lost` is True when events after the position that was given are no longer kept.
    """

    events: list[Event]
    position: str
    lost: bool = False


class Shelf(Protocol):
    """What is not a job: keys, workers, type schemas, digests, webhooks, idempotency. Small values, by name."""

    async def shelf_get(self, key: str) -> Item | None:
        """The value of a key, or None when there is none or it has expired."""

    async def shelf_put(
        self, key: str, value: str, *, version: int | None = None, ttl: float | None = None
    ) -> int | None:
        """Put a value if the key has that version (0: if it is not there; None: in any case).

        Returns the new version, or None when the key has another one. `ttl` is in seconds from now.
        """

    async def shelf_delete(self, key: str) -> bool:
        """Take a key away; whether it was there."""

    async def shelf_scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[Item]:
        """The items whose keys begin with `prefix` and come after `after`, in the order of their keys (code points)."""


class Store(Shelf, Protocol):
    """Where jobs live."""

    blocking: bool
    """Whether its port is the blocking one: then no coroutine of it ever suspends."""

    url: str
    """Where it is, without passwords; with the namespace."""

    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> Applied:
        """Apply each write, in order, then claim: one round trip for the lot."""

    async def beat(
        self, writes: Sequence[Write], leases: Sequence[tuple[str, str]], micros: int | None
    ) -> tuple[list[Outcome], list[str]]:
        """`apply` the writes and `renew` the leases, in one round trip: what the pulse of a process sends."""

    async def renew(self, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
        """For each (job id, token): renew its lease for `micros` from now (None: only look), past its deadline too.

        The answer is, for each: ``"live"``, ``"stopping"`` (renewed as well) or ``"lost"``. Changes no version.
        """

    async def get(self, job_id: str) -> Job | None:
        """The record of an id. `waiting_for` is filled when a stopping lease keeps it from being claimed."""

    async def select(self, select: Select, limit: int, after: Position | None = None) -> list[Job]:
        """The newest `limit` jobs that match and come after a position: by `created`, then id, both descending."""

    async def count(self, select: Select) -> int | None:
        """How many match, exactly; None where no index tells (a creation time; labels together with anything else)."""

    async def counts(self) -> dict[tuple[str, str], int]:
        """How many jobs there are by (type, status); a type of no jobs is left out."""

    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        """The kept events of a job with a version above `after`, oldest first. Empty when there is no such job."""

    async def feed(self, position: str | None, *, limit: int = 1000, timeout: float = 0.0) -> FeedEvents:
        """Events of all jobs after a position; waits up to `timeout` seconds for the first one.

        None gives no events and the position of now; ``"0"`` is the beginning of what is kept.
        """

    async def idle(self, worker: str, queues: Sequence[str], timeout: float) -> bool:
        """Wait until a job may be claimable in one of the queues, or a run of this worker is told to stop, or
        `nudge(worker)` is called. True when woken, False when the time (seconds) is over. May wake for nothing."""

    async def nudge(self, worker: str) -> None:
        """Wake `idle` of that worker, from any process."""

    async def sweep(self, *, lease: float, interval: float, limit: int = 200) -> Pass:
        """Find what is due. Two at once are harmless: every change that follows is guarded.

        Skips when the last pass is younger than half the interval. When it is older than half a lease, sets a hold of
        one whole lease; under a hold no lease is due; the first pass after it takes what was not renewed and ends it.
        """

    async def purge(self, *, ttl: float, limit: int = 500) -> int:
        """Remove up to `limit` records that ended more than `ttl` seconds ago, with all that belongs to them."""

    async def limits(self) -> dict[str, tuple[int | None, bool]]:
        """The limits set for queues: name -> (the most leases or None, paused)."""

    async def set_limit(self, queue: str, limit: int | None, paused: bool) -> None:
        """Limit or pause a queue for all workers, at once. (None, False) takes the setting away."""

    async def stoppings(self) -> list[tuple[str, str, int]]:
        """The stopping leases: (job id, token, expires in us)."""

    async def examine(self) -> Fitness:
        """Look at the server: version, durability, eviction, role, layout."""

    async def now(self) -> int:
        """The store's clock, in microseconds since 1970."""

    async def close(self) -> None:
        """Give back connections; the store can be used again, which opens new ones."""

    def twin(self, *, blocking: bool) -> Store:
        """A store on the same jobs over a port of that kind; itself when it already is one and can be shared.

        A blocking twin has connections of its own, so that a thread can use it beside the original.
        """
