"""Live lists: for each subscribed filter, the newest state of the jobs that changed, at most ten times a second.

Each row is encoded once for all clients. A client that does not keep up gets the newest state of each job when it reads
again, instead of a growing buffer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

from milepost.core.errors import MilepostError, StoreError, StoreUnavailableError
from milepost.core.job import Job, JobStatus, WaitingFor
from milepost.manager.feed_follower import FeedFollower, FeedNews
from milepost.query.filters import Filter
from milepost.query.member_progress import member_group
from milepost.stores.protocol import Store
from milepost.web.http.json_body import encoded, row_bytes
from milepost.web.http.list_params import ListParams
from milepost.web.http.problems import Problem
from milepost.web.live import sse
from milepost.web.live.sse import Frame, StreamClient
from milepost.web.security.principals import Principal

PROBE_INTERVAL = 1.0
PROBE_TIMEOUT = 2.0
_NAMES = {"redis": "Redis", "rediss": "Redis", "sqlite": "SQLite", "postgresql": "PostgreSQL"}


class StoreHealth:
    """Whether the store responds. `changed` is called after each change."""

    def __init__(self, store: Callable[[], Store], changed: Callable[[], None]) -> None:
        self._store = store
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self.is_down = False

    def start(self) -> None:
        """Start probing, unless it is running."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Stop probing. The next start assumes an available store."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.is_down = False

    def to_dict(self) -> dict[str, object]:
        """Return the state as JSON types."""
        scheme = self._store().url.partition(":")[0].partition("+")[0]
        return {"ok": not self.is_down, "store": _NAMES.get(scheme, "The store")}

    def problem(self, error: StoreError | None = None) -> Problem:
        """Return the refusal of a stream that names the store, as `to_dict` does."""
        error = error or StoreUnavailableError("it does not respond")
        log.warning("stream refused; job store unavailable: %s", error)
        names = {"error": type(error).__name__, "store": self.to_dict()["store"]}
        return Problem(503, "The job store is unavailable", headers={"Retry-After": "2"}, **names)

    async def _run(self) -> None:
        while True:
            probe = asyncio.get_running_loop().create_task(self._probe())
            try:
                # Not cancelled at the timeout, so that a hanging store gets no further requests.
                await asyncio.wait((probe,), timeout=PROBE_TIMEOUT)
                self._note(not probe.done() or not probe.result())
                self._note(not await probe)
            finally:
                probe.cancel()
            await asyncio.sleep(PROBE_INTERVAL)

    async def _probe(self) -> bool:
        try:
            await self._store().now()
        except (MilepostError, OSError):
            return False
        return True

    def _note(self, is_down: bool) -> None:
        if is_down != self.is_down:
            self.is_down = is_down
            self._changed()


log = logging.getLogger("milepost.web.live.list_subscriptions")
log.addHandler(logging.NullHandler())

BATCH_SECONDS = 0.1
COUNTS_SECONDS = 1.0
MAX_KNOWN_JOBS = 10_000
MAX_PENDING_ROWS = 5_000
REPARSE_SECONDS = 30.0
"""How often filters are parsed again, because they may contain times relative to now."""

WAITING_SECONDS = 2.0
"""How often the reason why the newest jobs wait is checked, because it changes without an event."""
WAITING_MAX = 500

Describe = Callable[[Sequence[Job]], Awaitable[list[Job]]]
Rows = dict[str, bytes | None]
"""Changed rows by job id; None for a job that left the list."""


class Known(NamedTuple):
    """A job as the store had it, and what clients were sent that it waits for."""

    job: Job
    waiting_for: WaitingFor | None
    is_described: bool = True
    """Whether clients have been sent what the job waits for; False while a snapshot is made."""


class ListClient(StreamClient):
    """A client of a list, and what changed since it last kept up."""

    def __init__(self, wanted: ListParams, principal: Principal, allowed: sse.Allowed | None) -> None:
        super().__init__(principal, allowed)
        self.wanted = wanted
        self.pending: Rows = {}
        self.needs_reset = False
        self.position: str | None = None

    def publish(self, frame: Frame, rows: Rows, position: str | None) -> None:
        """Send a batch; if the previous one is still being sent, keep the newest state of each job."""
        if not self.frames and self.sending_since is None:
            self.push(frame)
        elif len(self.pending) < MAX_PENDING_ROWS:
            self.pending.update(rows)
            self.position = position or self.position
        else:
            self.pending, self.needs_reset = {}, True


class Subscription:
    """Clients subscribed to the same filter with the same permissions."""

    def __init__(self, wanted: ListParams, principal: Principal) -> None:
        self.principal = principal
        self.clients: set[ListClient] = set()
        self._wanted = wanted
        self._filter: Filter = wanted.filter()
        self._read_at = time.monotonic()

    def matches(self, job: Job) -> bool:
        """Return whether a job is in this list now."""
        if time.monotonic() - self._read_at > REPARSE_SECONDS:
            self._filter, self._read_at = self._wanted.filter(), time.monotonic()
        return self.principal.sees(job) and self._filter.query.matches(job)


class ListHub:
    """All list subscriptions of this process."""

    def __init__(self, follower: FeedFollower, describe: Describe | None = None) -> None:
        self._follower = follower
        self._store = follower.store
        self.describe: Describe = describe or _as_they_are
        self.health = StoreHealth(self._store, self._publish_health)
        self._waited_at = 0.0
        self._subscriptions: dict[tuple[ListParams, str], Subscription] = {}
        self._changed: dict[str, bool] = {}
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._counts: dict[tuple[str, str], int] | None = None
        self._counted_at = 0.0
        self._counts_stale = False

    @property
    def position(self) -> str | None:
        """The feed position up to which changes are recorded."""
        return self._follower.position

    def clients(self) -> Iterator[ListClient]:
        """Yield every client of every list."""
        for subscription in list(self._subscriptions.values()):
            yield from list(subscription.clients)

    def clear(self) -> None:
        """Drop all subscriptions, because their event loop is gone."""
        self._subscriptions.clear()
        self._changed.clear()
        self._task = None
        self.health = StoreHealth(self._store, self._publish_health)

    def join(self, client: ListClient) -> Subscription:
        """Subscribe a client to its list, while the feed is being read."""
        wanted, principal = client.wanted, client.principal
        key = (wanted, f"{principal.binding}\n{principal.job_id or ''}\n{principal.job_created}")
        subscription = self._subscriptions.get(key)
        if subscription is None:
            subscription = self._subscriptions[key] = Subscription(wanted, principal)
        subscription.clients.add(client)
        self._follower.add(self._receive)
        self._counts = None  # the new client has not received the last counts
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._flush())
        self.health.start()
        return subscription

    def unsubscribe(self, subscription: Subscription, client: ListClient) -> None:
        """End a client's subscription."""
        subscription.clients.discard(client)
        self._subscriptions = {
            key: subscription for key, subscription in self._subscriptions.items() if subscription.clients
        }
        if not self._subscriptions and self._task is not None:
            self._task.cancel()
            self._task = None
            self._follower.unsubscribe(self._receive)
            self._changed.clear()
            self._known.clear()
            self.health.stop()

    def _receive(self, news: FeedNews) -> None:
        """Record which jobs changed; log events change no list. After lost events or an outage, start again."""
        for event in news.events:
            if event.kind != "log":
                self._changed[event.job_id] = event.kind == "deleted"
        if news.lost or news.resumed:
            self.reset()

    def reset(self) -> None:
        """Restart every list with a snapshot."""
        for client in self.clients():
            client.needs_reset = True
            client.push(Frame(0, True, b"", "anew"))

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(BATCH_SECONDS)
            try:
                if self._changed:
                    await self._publish_changes()
                if self._counts_stale and time.monotonic() - self._counted_at >= COUNTS_SECONDS:
                    await self._publish_counts(self._store())
                if time.monotonic() - self._waited_at >= WAITING_SECONDS:
                    await self._publish_waiting()
            except StoreError:
                continue  # the changes are kept; the hub logs the error
            except Exception:
                # A defect must not stop the lists of all clients.
                log.exception("unexpected error in list updates; continuing")

    async def _publish_changes(self) -> None:
        """Send every subscription what changed since the last batch."""
        position, changed = self.position, self._changed
        store = self._store()
        now: dict[str, Job | None] = {}
        self._changed = {}  # changes during the reads belong to the next batch
        try:
            for job_id, deleted in changed.items():
                now[job_id] = None if deleted else await store.get(job_id)
        except Exception:
            self._changed = {**changed, **self._changed}
            raise
        described = await self.describe([job for job in now.values() if job is not None])
        shown = now | {job.job_id: job for job in described}
        before = {job_id: known.job if (known := self._known.get(job_id)) is not None else None for job_id in changed}
        self._push(shown, before, position)
        for job_id, job in now.items():
            self._remember(job_id, job, shown[job_id])
        self._counts_stale = True

    def _rows(
        self,
        subscription: Subscription,
        now: dict[str, Job | None],
        before: dict[str, Job | None],
        encoded_rows: dict[str, bytes],
    ) -> Rows:
        rows: Rows = {}
        for job_id, job in now.items():
            if job is not None and subscription.matches(job):
                if job_id not in encoded_rows:
                    encoded_rows[job_id] = row_bytes(job)
                rows[job_id] = encoded_rows[job_id]
                continue
            old = before[job_id]
            # The previous state of a job may be unknown. Then report it as gone, but only to clients that may
            # know that it exists: those that see all jobs, and those that may see it now.
            seen = (
                subscription.principal.sees(old)
                if old is not None
                else job is not None and subscription.principal.sees(job)
            )
            if seen or not subscription.principal.bound:
                rows[job_id] = None
        return rows

    async def _publish_waiting(self) -> None:
        """Send the jobs whose reason for waiting has changed."""
        self._waited_at = time.monotonic()
        known_jobs = reversed(self._known.values())
        waiting = [
            one.job
            for one in known_jobs
            if one.is_described and (one.job.status is JobStatus.PENDING or member_group(one.job))
        ]
        waiting = waiting[:WAITING_MAX]
        changed: dict[str, Job | None] = {}
        for job, shown in zip(waiting, await self.describe(waiting), strict=True):
            known = self._known.get(job.job_id)
            if known is not None and known.job is job and known.waiting_for != shown.waiting_for:
                self._known[job.job_id] = Known(job, shown.waiting_for)
                changed[job.job_id] = shown
        if changed:
            # Without a position, because earlier events may be unsent.
            self._push(changed, dict(changed), None)

    def _push(self, now: dict[str, Job | None], before: dict[str, Job | None], position: str | None) -> None:
        encoded_rows: dict[str, bytes] = {}
        for subscription in list(self._subscriptions.values()):
            rows = self._rows(subscription, now, before, encoded_rows)
            if rows:
                frame = Frame(0, True, batch(rows, position), "jobs")
                for client in subscription.clients:
                    client.publish(frame, rows, position)

    def _publish_health(self) -> None:
        """Tell every client that the store became unavailable or available."""
        frame = Frame(0, True, self.health_frame(), "store")
        for client in self.clients():
            client.push(frame)

    def health_frame(self) -> bytes:
        """Return the state of the store as a message."""
        return sse.frame("store", encoded(self.health.to_dict()))

    async def observe(self, jobs: Sequence[Job]) -> list[Job]:
        """Return jobs as a snapshot shows them, and remember them: to decide who may learn of their deletion, and which
        of their waits have changed since.
        """
        for job in jobs:
            known = self._known.get(job.job_id)
            if known is None:
                self._remember(job.job_id, job, job, is_described=False)
            elif (known.job.created_at, known.job.version) < (job.created_at, job.version):
                self._known[job.job_id] = known._replace(job=job)
        described = await self.describe(jobs)
        for job, shown in zip(jobs, described, strict=True):
            known = self._known.get(job.job_id)
            # Other clients may have been sent another wait: then they are still to be sent the change.
            if known is not None and not known.is_described:
                self._known[job.job_id] = Known(known.job, shown.waiting_for)
        return described

    def _remember(self, job_id: str, job: Job | None, shown: Job | None, *, is_described: bool = True) -> None:
        self._known.pop(job_id, None)
        if job is not None and shown is not None:
            self._known[job_id] = Known(job, shown.waiting_for, is_described)
            if len(self._known) > MAX_KNOWN_JOBS:
                self._known.popitem(last=False)

    async def _publish_counts(self, store: Store) -> None:
        """Send the exact counts per status, at most once a second, to clients that see all jobs."""
        self._counted_at = time.monotonic()
        counts = await store.counts()
        self._counts_stale = False
        if counts == self._counts:
            return
        self._counts = counts
        frame = Frame(0, False, sse.frame("counts", encoded(counts_by_type(counts))), "counts")
        for subscription in list(self._subscriptions.values()):
            if not subscription.principal.bound:
                for client in subscription.clients:
                    client.push(frame)


async def _as_they_are(jobs: Sequence[Job]) -> list[Job]:
    return list(jobs)


def counts_by_type(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Return counts by type and status as nested objects."""
    shown: dict[str, dict[str, int]] = {}
    for (job_type, status), count in sorted(counts.items()):
        shown.setdefault(job_type, {})[status] = count
    return shown


def batch(rows: Rows, position: str | None) -> bytes:
    """Return a batch of changes as one SSE message."""
    jobs = b",".join(wire for wire in rows.values() if wire is not None)
    gone = encoded([job_id for job_id, wire in rows.items() if wire is None])
    return sse.frame("jobs", b'{"jobs":[%s],"gone":%s}' % (jobs, gone), position)
