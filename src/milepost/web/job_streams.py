"""The live stream of one job: a snapshot or what was missed, then each event once and in order, to the last word.

Owns the opening of a stream and its gaps; whatever is not told is declared by `skipped`. The rules are those of
`manager.watching`; the events come from the hub.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from milepost.core.events import Event
from milepost.core.job import Job
from milepost.manager.watching import catch_up, has_last_word, missed, snapshot
from milepost.stores.protocol import Store
from milepost.web import sse
from milepost.web.hub import CATCH_UP, RESET, Channel, Hub, event_frame
from milepost.web.sse import Reader
from milepost.web.wire import event_data


class JobStream(Response):
    """The answer that streams. Made by `open_stream`, when the reader already listens and the opening is known."""

    def __init__(
        self,
        hub: Hub,
        store: Store,
        channel: Channel,
        reader: Reader,
        opening: bytes,
        seen: int,
        ends: bool,
        allowed: sse.Allowed | None,
    ):
        super().__init__()
        self._allowed = allowed
        self._hub, self._store, self._channel, self._reader = hub, store, channel, reader
        self._opening, self._seen, self._ends = opening, seen, ends

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await sse.hold(receive, send, self._reader, self._write, self._allowed)
        finally:
            self.release()

    def release(self) -> None:
        """Stop listening."""
        self._hub.forget(self._channel, self._reader)
        self._hub.leave()

    async def _write(self, send: Send) -> None:
        reader = self._reader
        if self._ends:
            await reader.send(send, sse.RETRY + self._opening + sse.END.wire, more=False)
            return
        await reader.send(send, sse.RETRY + self._opening)
        self._opening = b""
        while True:
            frames = await reader.take()
            if len(frames) == 1 and frames[0].version == self._seen + 1 and frames[0].kind not in (CATCH_UP, RESET):
                self._seen = frames[0].version
                await reader.send(send, frames[0].wire)
                continue
            body, over = await self._join(frames)
            if body or over:
                await reader.send(send, body, more=not over)
            if over:
                return

    async def _join(self, frames: list[sse.Frame]) -> tuple[bytes, bool]:
        """The bytes for the frames that this client has not seen, gaps filled or declared; whether that is all."""
        parts: list[bytes] = []
        for frame in frames:
            version = frame.version
            if version == 0:
                parts.append(frame.wire)
                if frame.kind in ("end", "close"):
                    return b"".join(parts), True
            elif frame.kind == CATCH_UP:
                parts += await self._older(version + 1)
            elif frame.kind == RESET:
                parts.append(frame.wire)
                self._seen = version
            elif version > self._seen:
                if version > self._seen + 1:
                    parts += await self._older(version)
                parts.append(frame.wire)
                self._seen = version
        return b"".join(parts), False

    async def _older(self, until: int) -> list[bytes]:
        """What lies between what was seen and a version: from the store, or declared where this reader was too slow."""
        if until <= self._seen + 1:
            return []
        if self._reader.left_out > self._seen:
            told = [missed(self._channel.job_id, self._seen, until)]
        else:
            told = await catch_up(self._store, self._channel.job_id, self._seen, until)
        self._seen = until - 1
        return [event_frame(event).wire for event in told]


async def open_stream(
    hub: Hub, store: Store, job: Job, after: int | None, *, reconnect: bool, allowed: sse.Allowed | None = None
) -> Response:
    """Answer a listener of a job that is there. `after` is the version that it has seen, None for a new listener."""
    if after is not None and after >= job.version and has_last_word(job) and reconnect:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    await hub.enter()
    reader = Reader(asyncio.get_running_loop())
    channel = hub.listen(job.job_id, reader)
    try:
        # Read again, now that nothing can be missed.
        latest = await store.get(job.job_id)
        opening, seen, ends = await _opening(store, job, latest, after)
    except BaseException:
        hub.forget(channel, reader)
        hub.leave()
        raise
    channel.version = max(channel.version, seen)
    return JobStream(hub, store, channel, reader, opening, seen, ends, allowed)


async def _opening(store: Store, job: Job, latest: Job | None, after: int | None) -> tuple[bytes, int, bool]:
    if latest is None:
        gone = Event(job.job_id, job.version + 1, "deleted")
        return event_frame(gone).wire, gone.version, True
    if after is None or after > latest.version:
        wire = sse.frame("snapshot", event_data(snapshot(latest)), latest.version)
        return wire, latest.version, has_last_word(latest)
    told = await catch_up(store, job.job_id, after, latest.version + 1)
    return b"".join(event_frame(event).wire for event in told), latest.version, has_last_word(latest)
