"""The live stream of a list: a snapshot, or what changed since a position of the feed; then batches of changes.

Owns the opening; the batches come from the boards.
"""

from __future__ import annotations

import asyncio
import re

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from milepost.core.errors import StoreError
from milepost.stores.protocol import Store
from milepost.stores.query import find
from milepost.web import sse
from milepost.web.boards import Group, ListReader, Rows, batch, nested
from milepost.web.hub import Hub
from milepost.web.listing import Wanted
from milepost.web.principals import Principal
from milepost.web.reading import Patient
from milepost.web.wire import encoded, row

ROWS = 100
CHANGES_MAX = 5_000
_POSITION = re.compile(r"\d{1,20}(-\d{1,20})?\Z")


class ListStream(Response):
    """The answer that streams a list."""

    def __init__(
        self,
        hub: Hub,
        store: Store,
        wanted: Wanted,
        principal: Principal,
        group: Group,
        reader: ListReader,
        opening: bytes,
        allowed: sse.Allowed | None,
    ):
        super().__init__()
        self._allowed = allowed
        self._hub, self._store, self._wanted, self._principal = hub, store, wanted, principal
        self._group, self._reader, self._opening = group, reader, opening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await sse.hold(receive, send, self._reader, self._write, self._allowed)
        finally:
            self._hub.boards.part(self._group, self._reader)
            self._hub.leave()

    async def _write(self, send: Send) -> None:
        reader = self._reader
        await reader.send(send, sse.RETRY + self._opening)
        self._opening = b""
        while True:
            if not reader.frames and (reader.pending or reader.begin_anew):
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
        """What a client that fell behind is to know: the newest state of what changed, or the list anew."""
        reader, position = self._reader, self._hub.boards.position
        pending, reader.pending = reader.pending, {}
        if not reader.begin_anew:
            # The hub may have heard of more that no batch has told yet.
            return batch(pending, reader.position)
        reader.begin_anew = False
        return sse.frame("reset", b"{}") + await _snapshot(
            self._hub, self._store, self._wanted, self._principal, position
        )


async def open_list_stream(
    hub: Hub,
    store: Store,
    wanted: Wanted,
    principal: Principal,
    last: str | None,
    *,
    allowed: sse.Allowed | None = None,
) -> Response:
    """Answer a listener of a list. `last` is the position that it has seen, None for a new listener."""
    wanted.filter()  # raises before anything is held
    await hub.enter()
    reader = ListReader(asyncio.get_running_loop())
    group = hub.boards.join(wanted, principal, reader)
    position = hub.boards.position
    try:
        changes = None if last is None else await _changes(store, group, last)
        if changes is not None:
            opening = changes
        else:
            opening = await _snapshot(hub, store, wanted, principal, position)
            if last is not None:
                opening = sse.frame("reset", b"{}") + opening
    except BaseException:
        hub.boards.part(group, reader)
        hub.leave()
        raise
    return ListStream(hub, store, wanted, principal, group, reader, opening, allowed)


async def _snapshot(hub: Hub, store: Store, wanted: Wanted, principal: Principal, position: str | None) -> bytes:
    page = await find(Patient(store), principal.within(wanted.filter().query), ROWS)
    hub.boards.know(page.jobs)
    data = {
        "jobs": [row(job) for job in page.jobs],
        "total": page.total,
        "total_at_least": page.total_at_least,
        "next_cursor": page.next_cursor,
        "counts": None if principal.bound else nested(await store.counts()),
    }
    return sse.frame("snapshot", encoded(data), position)


async def _changes(store: Store, group: Group, last: str) -> bytes | None:
    """What changed since a position, as one batch; None when that can no longer be told."""
    if not _POSITION.match(last):
        return None
    ids: dict[str, bool] = {}
    position = last
    while len(ids) < CHANGES_MAX:
        try:
            news = await store.feed(position)
        except (ValueError, StoreError):
            return None
        if news.lost:
            return None
        ids.update((event.job_id, event.kind == "deleted") for event in news.events)
        position = news.position
        if not news.events:
            break
    else:
        return None
    rows: Rows = {}
    for job_id, deleted in ids.items():
        job = None if deleted else await store.get(job_id)
        if job is not None and group.matches(job):
            rows[job_id] = encoded(row(job))
        elif not group.principal.bound or (job is not None and group.principal.sees(job)):
            rows[job_id] = None
    return batch(rows, position)
