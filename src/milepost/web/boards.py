"""Live lists: for each filter that somebody looks at, the newest state of the jobs that changed, ten times a second at most.

Owns what a list stream says and that each row is encoded once for all who see it; the events come from the hub. A client
that does not keep up gets the newest state of each job when it reads again, instead of a growing buffer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from milepost.core.errors import StoreError
from milepost.core.events import Event
from milepost.core.job import Job
from milepost.stores.filters import Filter
from milepost.stores.protocol import Store
from milepost.web import sse
from milepost.web.listing import Wanted
from milepost.web.principals import Principal
from milepost.web.sse import Frame, Reader
from milepost.web.wire import encoded, row

log = logging.getLogger("milepost.web.boards")
log.addHandler(logging.NullHandler())

BATCH_SECONDS = 0.1
COUNTS_SECONDS = 1.0
KNOWN_MAX = 10_000
PENDING_MAX = 5_000
REPARSE_SECONDS = 30.0
"""Filters speak of times relative to now; they are read again so often."""

Rows = dict[str, bytes | None]
"""What changed: a job's row, or None for one that has left the list."""


class ListReader(Reader):
    """One client of a list, and what changed since it last kept up."""

    __slots__ = ("begin_anew", "pending", "position")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.pending: Rows = {}
        self.begin_anew = False
        self.position: str | None = None

    def tell(self, frame: Frame, rows: Rows, position: str | None) -> None:
        """Push a batch; while the client has not taken the one before, keep the newest state of each job."""
        if not self.frames and self.sending_since is None:
            self.push(frame)
        elif len(self.pending) < PENDING_MAX:
            self.pending.update(rows)
            self.position = position
        else:
            self.pending, self.begin_anew = {}, True


class Group:
    """Those who look at the same filter with the same eyes."""

    def __init__(self, wanted: Wanted, principal: Principal) -> None:
        self.principal = principal
        self.readers: set[ListReader] = set()
        self._wanted = wanted
        self._filter: Filter = wanted.filter()
        self._read_at = time.monotonic()

    def matches(self, job: Job) -> bool:
        """Whether a job is in this list now."""
        if time.monotonic() - self._read_at > REPARSE_SECONDS:
            self._filter, self._read_at = self._wanted.filter(), time.monotonic()
        return self.principal.sees(job) and self._filter.query.matches(job)


class Boards:
    """All lists that are looked at in this process."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._groups: dict[tuple[Wanted, str], Group] = {}
        self._changed: dict[str, bool] = {}
        self._known: OrderedDict[str, Job] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        self._counts: dict[tuple[str, str], int] | None = None
        self._counted_at = 0.0
        self._to_count = False
        self.position: str | None = None

    def readers(self) -> Iterator[ListReader]:
        """Every client of every list."""
        for group in list(self._groups.values()):
            yield from list(group.readers)

    def clear(self) -> None:
        """Forget everybody: their event loop is gone."""
        self._groups.clear()
        self._changed.clear()
        self._task = None

    def join(self, wanted: Wanted, principal: Principal, reader: ListReader) -> Group:
        """Tell a reader what changes in a list."""
        key = (wanted, f"{principal.binding}\n{principal.job_id or ''}")
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(wanted, principal)
        group.readers.add(reader)
        self._counts = None  # what was told last was told to others
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._flush())
        return group

    def part(self, group: Group, reader: ListReader) -> None:
        """Tell a reader nothing any more."""
        group.readers.discard(reader)
        self._groups = {key: group for key, group in self._groups.items() if group.readers}
        if not self._groups and self._task is not None:
            self._task.cancel()
            self._task = None
            self._changed.clear()
            self._known.clear()

    def note(self, event: Event) -> None:
        """Remember that a job changed; logs change nothing that a list shows."""
        if self._groups and event.kind != "log":
            self._changed[event.job_id] = event.kind == "deleted"

    def reset(self) -> None:
        """The feed lost events: every list begins anew."""
        for reader in self.readers():
            reader.begin_anew = True
            reader.push(Frame(0, True, b"", "anew"))

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(BATCH_SECONDS)
            try:
                if self._changed:
                    await self._tell()
                if self._to_count and time.monotonic() - self._counted_at >= COUNTS_SECONDS:
                    await self._tell_counts(self._store())
            except StoreError:
                continue  # the jobs stay noted; the hub says what is wrong
            except Exception:
                # A defect here must not silence every list of the process.
                log.exception("the lists met an unexpected error; they go on")

    async def _tell(self) -> None:
        """Tell every group what changed since the last batch."""
        position, changed = self.position, self._changed
        store = self._store()
        now: dict[str, Job | None] = {}
        self._changed = {}  # what changes again while it is read belongs to the next batch
        try:
            for job_id, deleted in changed.items():
                now[job_id] = None if deleted else await store.get(job_id)
        except Exception:
            self._changed = {**changed, **self._changed}
            raise
        before = {job_id: self._known.get(job_id) for job_id in changed}
        encoded_rows: dict[str, bytes] = {}
        for group in list(self._groups.values()):
            rows = self._rows(group, now, before, encoded_rows)
            if rows:
                frame = Frame(0, True, batch(rows, position), "jobs")
                for reader in group.readers:
                    reader.tell(frame, rows, position)
        for job_id, job in now.items():
            self._remember(job_id, job)
        self._to_count = True

    def _rows(
        self, group: Group, now: dict[str, Job | None], before: dict[str, Job | None], encoded_rows: dict[str, bytes]
    ) -> Rows:
        rows: Rows = {}
        for job_id, job in now.items():
            if job is not None and group.matches(job):
                if job_id not in encoded_rows:
                    encoded_rows[job_id] = encoded(row(job))
                rows[job_id] = encoded_rows[job_id]
                continue
            old = before[job_id]
            # Of a job that was never looked at it is not known whether it was in the list: say so to those who may
            # know of its existence, that is, who see everything or could see it now.
            seen = group.principal.sees(old) if old is not None else job is not None and group.principal.sees(job)
            if seen or not group.principal.bound:
                rows[job_id] = None
        return rows

    def know(self, jobs: Iterable[Job]) -> None:
        """Remember jobs that somebody was shown: whose they were is asked when they are deleted."""
        for job in jobs:
            self._remember(job.job_id, job)

    def _remember(self, job_id: str, job: Job | None) -> None:
        self._known.pop(job_id, None)
        if job is not None:
            self._known[job_id] = job
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)

    async def _tell_counts(self, store: Store) -> None:
        """The exact counts for the tabs, once a second at most, to those who see everything."""
        self._counted_at = time.monotonic()
        counts = await store.counts()
        self._to_count = False
        if counts == self._counts:
            return
        self._counts = counts
        frame = Frame(0, False, sse.frame("counts", encoded(nested(counts))), "counts")
        for group in list(self._groups.values()):
            if not group.principal.bound:
                for reader in group.readers:
                    reader.push(frame)


def nested(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """Counts by type and status, as JSON shows them."""
    shown: dict[str, dict[str, int]] = {}
    for (job_type, status), count in sorted(counts.items()):
        shown.setdefault(job_type, {})[status] = count
    return shown


def batch(rows: Rows, position: str | None) -> bytes:
    """A batch of changes as one message."""
    jobs = b",".join(wire for wire in rows.values() if wire is not None)
    gone = encoded([job_id for job_id, wire in rows.items() if wire is None])
    return sse.frame("jobs", b'{"jobs":[%s],"gone":%s}' % (jobs, gone), position)
