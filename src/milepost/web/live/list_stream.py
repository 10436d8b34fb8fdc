"""The event stream of a job list: a snapshot or the changes since a feed position, then batches of changes."""

from __future__ import annotations

import asyncio
import re

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from milepost.core.errors import StoreError
from milepost.core.job import Job
from milepost.core.serialization import from_micros
from milepost.stores.protocol import Store
from milepost.stores.query import Page, find
from milepost.web.http.list_params import ListParams, one_job
from milepost.web.http.serialization import encoded, row, row_bytes
from milepost.web.live import sse
from milepost.web.live.hub import Hub
from milepost.web.live.list_subscriptions import ListHub, ListReader, Rows, Subscription, batch, counts_by_type
from milepost.web.security.principals import Principal

ROWS = 100
MAX_CHANGES = 5_000
_POSITION = re.compile(r"\d{1,20}(-\d{1,20})?\Z")


class ListStream(Response):
    """The streaming response of a list."""

    def __init__(
        self,
        hub: Hub,
        store: Store,
        wanted: ListParams,
        principal: Principal,
        subscription: Subscription,
        reader: ListReader,
        opening: bytes,
        with_jobs: bool,
        allowed: sse.Allowed | None,
    ):
        super().__init__()
        self._allowed, self._with_jobs = allowed, with_jobs
        self._hub, self._store, self._wanted, self._principal = hub, store, wanted, principal
        self._group, self._reader, self._opening = subscription, reader, opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await sse.stream_response(scope, receive, send, self._reader, self._write, self._allowed)
        finally:
            self._hub.lists.unsubscribe(self._group, self._reader)
            self._hub.leave(self._principal)

    async def _write(self, send: Send) -> None:
        reader = self._reader
        await reader.send(send, sse.RETRY + self._opening)
        self._opening = b""
        while True:
            if not reader.frames and (reader.pending or reader.needs_reset):
                body = await self._newest()
            else:
                frames = await reader.take()
                if any(one.kind == "close" for one in frames):
                    await reader.send(send, b"", more=False)
                    return
                body = b"".join(one.wire for one in frames)
            if body:
                await reader.send(send, body)

    async def _newest(self) -> bytes:
        """Return what a slow client needs: the newest state of the changed jobs, or a new snapshot."""
        reader, position = self._reader, self._hub.lists.position
        pending, reader.pending = reader.pending, {}
        last, reader.position = reader.position, None
        if not reader.needs_reset:
            # The position of the last batch; the hub may be ahead of it.
            return batch(pending, last)
        reader.needs_reset = False
        return sse.frame("reset", b"{}") + await _snapshot(
            self._hub, self._store, self._wanted, self._principal, position, self._with_jobs
        )


async def open_list_stream(
    hub: Hub,
    store: Store,
    wanted: ListParams,
    principal: Principal,
    last: str | None,
    *,
    with_jobs: bool = True,
    allowed: sse.Allowed | None = None,
) -> Response:
    """Open the stream of a list. `last` is the last position the client has seen, None for a new client.

    Raises Problem 503 that names the store if it is unavailable, at once if other clients found that out.
    """
    wanted.filter()  # raises before anything is allocated
    if hub.lists.health.is_down:
        raise hub.lists.health.problem()
    try:
        return await _open(hub, store, wanted, principal, last, with_jobs, allowed)
    except StoreError as error:
        raise hub.lists.health.problem(error) from error


async def _open(
    hub: Hub,
    store: Store,
    wanted: ListParams,
    principal: Principal,
    last: str | None,
    with_jobs: bool,
    allowed: sse.Allowed | None,
) -> Response:
    await hub.enter(principal)
    reader = ListReader(asyncio.get_running_loop())
    subscription = hub.lists.join(wanted, principal, reader)
    position = hub.lists.position
    try:
        changes = None if last is None else await _changes(store, hub.lists, subscription, last)
        if changes is not None:
            opening = changes
        else:
            opening = await _snapshot(hub, store, wanted, principal, position, with_jobs)
            if last is not None:
                opening = sse.frame("reset", b"{}") + opening
        if hub.lists.health.is_down:  # since a moment ago
            opening += hub.lists.health_frame()
    except BaseException:
        hub.lists.unsubscribe(subscription, reader)
        hub.leave(principal)
        raise
    return ListStream(hub, store, wanted, principal, subscription, reader, opening, with_jobs, allowed)


async def _snapshot(
    hub: Hub, store: Store, wanted: ListParams, principal: Principal, position: str | None, with_jobs: bool
) -> bytes:
    query = wanted.filter().query
    if principal.job_id is not None:
        page = await one_job(store, principal.job_id, query)
    elif wanted.ids:
        found = [job for job_id in wanted.ids if (job := await store.get(job_id)) is not None]
        found = [job for job in found if principal.sees(job) and query.matches(job)]
        page = Page(found, len(found), len(found), None)
    else:
        page = await find(store, principal.within(query), ROWS)
    shown = await hub.lists.observe(page.jobs)
    data = {
        "at": from_micros(await store.now()).isoformat(),
        "jobs": [row(job) for job in shown] if with_jobs else [],
        "total": page.total,
        "total_at_least": page.total_at_least,
        "next_cursor": page.next_cursor,
        "counts": None if principal.bound else counts_by_type(await store.counts()),
    }
    return sse.frame("snapshot", encoded(data), position)


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
