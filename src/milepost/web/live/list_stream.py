"""The event stream of a job list: a snapshot or the changes since a feed position, then batches of changes."""

from __future__ import annotations

import re

from starlette.types import Send

from milepost.core.errors import StoreError
from milepost.core.job import Job
from milepost.core.serialization import from_micros, is_id
from milepost.stores.protocol import Store
from milepost.stores.query import Page, find
from milepost.web.http.json_body import encoded, row, row_bytes
from milepost.web.http.list_params import ListParams, one_job
from milepost.web.live import sse
from milepost.web.live.hub import Hub
from milepost.web.live.list_subscriptions import ListClient, ListHub, Rows, Subscription, batch, counts_by_type
from milepost.web.security.principals import Principal

ROWS = 100
MAX_CHANGES = 5_000
_POSITION = re.compile(r"\d{1,20}(-\d{1,20})?\Z")


class ListStream(ListClient):
    """The streaming response of a list. `open_list_stream` creates it and reads its beginning."""

    def __init__(
        self,
        hub: Hub,
        wanted: ListParams,
        principal: Principal,
        allowed: sse.Allowed | None,
        *,
        with_jobs: bool,
    ) -> None:
        super().__init__(wanted, principal, allowed)
        self._hub, self._with_jobs, self._opening = hub, with_jobs, b""
        self._subscription = hub.lists.join(self)

    def release(self) -> None:
        """Unsubscribe the client."""
        self._hub.lists.unsubscribe(self._subscription, self)
        self._hub.leave(self.principal)

    async def open(self, last: str | None) -> None:
        """Read the first message: what changed since the last position that the client has seen, or a snapshot."""
        lists = self._hub.lists
        position = lists.position
        changes = None if last is None else await _changes(self._hub.store(), lists, self._subscription, last)
        self._opening = await self._snapshot(position) if changes is None else changes
        if changes is None and last is not None:
            self._opening = sse.frame("reset", b"{}") + self._opening
        if lists.health.is_down:  # since a moment ago
            self._opening += lists.health_frame()

    async def write(self, send: Send) -> None:
        """Send the first message, and then batches of changes."""
        await self.send(send, sse.RETRY + self._opening)
        self._opening = b""
        while True:
            if not self.frames and (self.pending or self.needs_reset):
                body = await self._newest()
            else:
                frames = await self.take()
                if any(one.kind == "close" for one in frames):
                    await self.send(send, b"", more=False)
                    return
                body = b"".join(one.wire for one in frames)
            if body:
                await self.send(send, body)

    async def _newest(self) -> bytes:
        """Return what a slow client needs: the newest state of the changed jobs, or a new snapshot."""
        position = self._hub.lists.position
        pending, self.pending = self.pending, {}
        last, self.position = self.position, None
        if not self.needs_reset:
            # The position of the last batch; the hub may be ahead of it.
            return batch(pending, last)
        self.needs_reset = False
        return sse.frame("reset", b"{}") + await self._snapshot(position)

    async def _snapshot(self, position: str | None) -> bytes:
        store, principal, wanted = self._hub.store(), self.principal, self.wanted
        query = wanted.filter().query
        if principal.job_id is not None:
            page = await one_job(store, principal.job_id, query)
        elif wanted.ids:
            found = [job for job_id in filter(is_id, wanted.ids) if (job := await store.get(job_id)) is not None]
            found = [job for job in found if principal.sees(job) and query.matches(job)]
            page = Page(found, len(found), len(found), None)
        else:
            page = await find(store, principal.within(query), ROWS)
        shown = await self._hub.lists.observe(page.jobs)
        data = {
            "at": from_micros(await store.now()).isoformat(),
            "jobs": [row(job) for job in shown] if self._with_jobs else [],
            "total": page.total,
            "total_at_least": page.total_at_least,
            "next_cursor": page.next_cursor,
            "counts": None if principal.bound else counts_by_type(await store.counts()),
        }
        return sse.frame("snapshot", encoded(data), position)


async def open_list_stream(
    hub: Hub,
    wanted: ListParams,
    principal: Principal,
    last: str | None,
    *,
    with_jobs: bool = True,
    allowed: sse.Allowed | None = None,
) -> ListStream:
    """Open the stream of a list. `last` is the last position the client has seen, None for a new client.

    Raises Problem 503 that names the store if it is unavailable, at once if other clients found that out.
    """
    wanted.filter()  # raises before anything is allocated
    if hub.lists.health.is_down:
        raise hub.lists.health.problem()
    try:
        await hub.enter(principal)
        stream = ListStream(hub, wanted, principal, allowed, with_jobs=with_jobs)
        try:
            await stream.open(last)
        except BaseException:
            stream.release()
            raise
    except StoreError as error:
        raise hub.lists.health.problem(error) from error
    return stream


async def _changes(store: Store, lists: ListHub, subscription: Subscription, last: str) -> bytes | None:
    """Return the changes since a position as one batch, or None if they are no longer known."""
    if not _POSITION.match(last):
        return None
    ids: dict[str, None] = {}
    position = last
    while len(ids) < MAX_CHANGES:
        try:
            news = await store.feed(position)
        except (ValueError, StoreError):
            return None
        if news.lost:
            return None
        ids.update((event.job_id, None) for event in news.events)
        position = news.position
        if not news.events:
            break
    else:
        return None
    rows: Rows = {}
    if subscription.principal.job_id is not None:
        ids = {job_id: None for job_id in ids if job_id == subscription.principal.job_id}
    found: list[Job] = []
    for job_id in ids:
        job = await store.get(job_id)
        if job is not None and subscription.matches(job):
            found.append(job)
        elif not subscription.principal.bound or (job is not None and subscription.principal.sees(job)):
            rows[job_id] = None
    rows.update((job.job_id, row_bytes(job)) for job in await lists.observe(found))
    return batch(rows, position)
