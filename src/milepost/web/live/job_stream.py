"""The event stream of one job: a snapshot or the missed events, then each event once and in order, until the job ends.

Events that cannot be sent are declared by a `skipped` event.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.stream_position import StreamPosition, born
from milepost.manager.watch import catch_up, is_final, is_same, skipped_event, snapshot
from milepost.stores.protocol import Store
from milepost.web.live import sse
from milepost.web.live.hub import CATCH_UP, RECHECK, RESET, Channel, Hub, event_frame
from milepost.web.live.sse import Reader
from milepost.web.security.principals import ANYONE, Principal


class JobStream(Response):
    """The streaming response. `open_stream` creates it when the client is subscribed and the first events are known."""

    def __init__(
        self,
        hub: Hub,
        store: Store,
        channel: Channel,
        reader: Reader,
        job: Job,
        opening: list[Event],
        ends: bool,
        allowed: sse.Allowed | None,
        principal: Principal,
    ):
        super().__init__()
        self._allowed = allowed
        self._principal = principal
        self._hub, self._store, self._channel, self._reader = hub, store, channel, reader
        self._job, self._born, self._opening, self._ends = job, born(job.created_at), opening, ends
        self._seen = opening[-1].version if opening else job.version
        # Until the second next read, the feed may still deliver events from before this job existed.
        self._settled = hub.reads + 2

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await sse.stream_response(scope, receive, send, self._reader, self._write, self._allowed)
        finally:
            self.release()

    def release(self) -> None:
        """Unsubscribe the client."""
        self._hub.stop_listening(self._channel, self._reader)
        self._hub.leave(self._principal)

    async def _write(self, send: Send) -> None:
        reader = self._reader
        if self._ends:
            await reader.send(send, sse.RETRY + self._encoded(self._opening) + sse.END.wire, more=False)
            return
        await reader.send(send, sse.RETRY + self._encoded(self._opening))
        self._opening = []
        while True:
            body, over = await self._join(await reader.take())
            if body or over:
                await reader.send(send, body, more=not over)
            if over:
                return

    async def _join(self, frames: list[sse.Frame]) -> tuple[bytes, bool]:
        """Return the bytes of the frames that the client has not seen, with gaps filled or declared, and whether the
        stream ends.
        """
        parts: list[bytes] = []
        looked = False
        for frame in frames:
            version, older = frame.version, list[Event]()
            if self._is_doubtful(frame):
                if looked:
                    continue  # the record was read after these frames arrived
                looked = True
                body, over = await self._compare_with_record(frame)
                parts.append(body)
                if over:
                    return b"".join((*parts, sse.END.wire)), True
                continue
            if version == 0:
                parts.append(frame.wire)
                if frame.kind in ("end", "close"):
                    return b"".join(parts), True
            elif frame.kind == RESET and version < self._seen:
                parts.append(self._named(version, frame.wire))
                self._seen = version
            elif frame.kind in (CATCH_UP, RESET):
                older = await self._older(version + 1)
            elif version > self._seen + 1:
                older = await self._older(version)
            if older:
                parts.append(self._encoded(older))
                self._seen = older[-1].version
                if older[-1].kind == "deleted":
                    return b"".join((*parts, sse.END.wire)), True
            if version == self._seen + 1:
                parts.append(self._named(version, frame.wire))
                self._seen = version
        return b"".join(parts), False

    def _is_doubtful(self, frame: sse.Frame) -> bool:
        """Return whether a frame may belong to an earlier or later job with the same id.

        The feed names only the id, and the hub may be behind. The store's clock may have been set back, so the time of
        an event is checked only while the feed may still contain older ones.
        """
        created_at = self._job.created_at
        if frame.kind in (RECHECK, "deleted"):
            return True
        if frame.created_at is not None:
            return frame.created_at != created_at
        return (
            frame.read < self._settled
            and frame.version > self._seen
            and frame.at is not None
            and frame.at <= created_at
        )

    async def _compare_with_record(self, frame: sse.Frame) -> tuple[bytes, bool]:
        """Return what the record adds to the events sent so far, after a doubtful frame, and whether the stream ends."""
        job_id, seen = self._job.job_id, self._seen
        latest = await self._store.get(job_id)
        if latest is None or not is_same(latest, self._job):
            if frame.kind == "deleted" and frame.version > seen and frame.at and frame.at > self._job.created_at:
                before = [skipped_event(job_id, seen, frame.version)] if frame.version > seen + 1 else []
                return self._encoded(before) + self._named(frame.version, frame.wire), True
            return self._encoded([Event(job_id, seen + 1, "deleted")]), True
        if latest.version < seen:
            events = [snapshot(latest)]
        else:
            events = await catch_up(self._store, latest, seen, latest.version + 1)
        if events:
            self._seen = events[-1].version
        return self._encoded(events), _is_over(latest, events)

    async def _older(self, until: int) -> list[Event]:
        """Return the events up to a version: from the store, or as a declared gap if this client was too slow."""
        if self._reader.dropped_version > self._seen and until > self._seen + 1:
            return [skipped_event(self._job.job_id, self._seen, until)]
        return await catch_up(self._store, self._job, self._seen, until)

    def _encoded(self, events: list[Event]) -> bytes:
        return b"".join(self._named(event.version, event_frame(event).wire) for event in events)

    def _named(self, version: int, wire: bytes) -> bytes:
        """Return a message with its id, the position from which a client may resume."""
        return b"id: %s\n%s" % (str(StreamPosition(version, self._born)).encode(), wire)


async def open_stream(
    hub: Hub,
    store: Store,
    job: Job,
    after: StreamPosition | None,
    *,
    reconnect: bool,
    allowed: sse.Allowed | None = None,
    principal: Principal = ANYONE,
) -> Response:
    """Open the stream of an existing job. `after` is the last position the client has seen, None for a new client."""
    if reconnect and after is not None and after.seen_of(job) == job.version and is_final(job):
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    await hub.enter(principal)
    reader = Reader(asyncio.get_running_loop())
    channel = hub.listen(job.job_id, reader)
    try:
        # Read the job again: from now on no event can be missed.
        latest = await store.get(job.job_id)
        opening, ends = await _opening(store, job, latest, after)
    except BaseException:
        hub.stop_listening(channel, reader)
        hub.leave(principal)
        raise
    if not ends and latest is not None:
        channel.observe(latest)
    return JobStream(hub, store, channel, reader, latest or job, opening, ends, allowed, principal)


async def _opening(
    store: Store, job: Job, latest: Job | None, after: StreamPosition | None
) -> tuple[list[Event], bool]:
    if latest is None or not is_same(latest, job):  # the client may not be allowed to see the new job
        return [Event(job.job_id, job.version + 1, "deleted")], True
    seen = None if after is None else after.seen_of(latest)
    if seen is None:
        return [snapshot(latest)], is_final(latest)
    events = await catch_up(store, latest, seen, latest.version + 1)
    return events, _is_over(latest, events)


def _is_over(job: Job, events: list[Event]) -> bool:
    return is_final(job) or (bool(events) and events[-1].kind == "deleted")
