"""The event stream of one job: a snapshot or the missed events, then each event once and in order, until the job ends.

Events that cannot be sent are declared by a `skipped` event. The output of a job has a stream of its own: the hub wakes its
readers, which read what they miss from the store.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from fastapi import Request
from starlette.types import Send

from milepost.core.defaults import LIST_LIMIT_MAX
from milepost.core.events import Event, StreamPosition, born
from milepost.core.job import Job
from milepost.core.output import OutputPosition
from milepost.core.serialization import compact_json
from milepost.manager.output import read_output
from milepost.manager.watch import catch_up, is_final, is_same, skipped_event, snapshot
from milepost.stores.query import created
from milepost.web.live import sse
from milepost.web.live.hub import CATCH_UP, RECHECK, RESET, Hub, JobReader, event_frame
from milepost.web.live.sse import StreamClient
from milepost.web.security.principals import ANYONE, Principal


class JobStream(JobReader[StreamPosition | None]):
    """The event stream of one job after the last position that the client has seen, None for a new client."""

    async def open(self, job: Job) -> bool:
        """Read the first events: a snapshot, or those after a position.

        The client is subscribed, so from now on no event can be missed.
        """
        # Until the second next read, the feed may still deliver events from before this job existed.
        self._settled = self._hub.reads + 2
        self._job, self._born = job, born(job.created_at)
        seen = None if self._after is None else self._after.seen_of(job)
        if seen is None:
            self._opening, self._ends = [snapshot(job)], is_final(job)
        else:
            self._opening = await catch_up(self._hub.store(), job, seen, job.version + 1)
            self._ends = _is_over(job, self._opening)
        self._seen = self._opening[-1].version if self._opening else job.version
        if not self._ends:
            self._channel.observe(job)
        return seen != job.version or not is_final(job)

    async def write(self, send: Send) -> None:
        """Send the first events, and then each event until the job ends."""
        body, over = sse.RETRY + self._encoded(self._opening), self._ends
        self._opening = []
        if over:
            body += sse.END.wire
        await self.send(send, body, more=not over)
        while not over:
            body, over = await self._join(await self.take())
            if body or over:
                await self.send(send, body, more=not over)

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
        latest = await self._hub.store().get(job_id)
        if latest is None or not is_same(latest, self._job):
            if frame.kind == "deleted" and frame.version > seen and frame.at and frame.at > self._job.created_at:
                before = [skipped_event(job_id, seen, frame.version)] if frame.version > seen + 1 else []
                return self._encoded(before) + self._named(frame.version, frame.wire), True
            return self._encoded([Event(job_id, seen + 1, "deleted")]), True
        if latest.version < seen:
            events = [snapshot(latest)]
        else:
            events = await catch_up(self._hub.store(), latest, seen, latest.version + 1)
        if events:
            self._seen = events[-1].version
        return self._encoded(events), _is_over(latest, events)

    async def _older(self, until: int) -> list[Event]:
        """Return the events up to a version: from the store, or as a declared gap if this client was too slow."""
        if self.dropped_version > self._seen and until > self._seen + 1:
            return [skipped_event(self._job.job_id, self._seen, until)]
        return await catch_up(self._hub.store(), self._job, self._seen, until)

    def _encoded(self, events: list[Event]) -> bytes:
        return b"".join(self._named(event.version, event_frame(event).wire) for event in events)

    def _named(self, version: int, wire: bytes) -> bytes:
        """Return a message with its id, the position from which a client may resume."""
        return b"id: %s\n%s" % (str(StreamPosition(version, self._born)).encode(), wire)


def _is_over(job: Job, events: list[Event]) -> bool:
    return is_final(job) or (bool(events) and events[-1].kind == "deleted")


MAX_SECONDS = 60.0
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?", re.IGNORECASE)


def preferred_wait(request: Request) -> float | None:
    """Return the seconds of `Prefer: wait=n` (RFC 7240), at most 60, or None."""
    found = _WAIT.search(",".join(request.headers.getlist("prefer")))
    return None if found is None else min(float(found[1]), MAX_SECONDS)


async def wait_until(
    hub: Hub, job: Job, ready: Callable[[Job], bool], seconds: float, principal: Principal = ANYONE
) -> Job | None:
    """Wait until a job is ready, and return it; after the time, or at a shutdown, return it as it is.

    Return None if the job is gone: deleted, recreated, or no longer visible to the principal.
    """
    if ready(job) or seconds <= 0:
        return job
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    await hub.enter(principal)
    client = StreamClient(principal)
    channel = hub.listen(job.job_id, client)
    try:
        while True:
            latest = await hub.store().get(job.job_id)
            if latest is None or created(latest) != created(job) or not principal.sees(latest):
                return None
            if ready(latest):
                return latest
            channel.version = max(channel.version, latest.version)
            try:
                async with asyncio.timeout_at(deadline):
                    frames = await client.take()
            except TimeoutError:
                return latest
            if any(frame.kind == "close" for frame in frames):
                return latest
    finally:
        hub.stop_listening(channel, client)
        hub.leave(principal)


class OutputStream(JobReader[OutputPosition]):
    """The stream with the output of one job after a position."""

    async def open(self, job: Job) -> bool:
        """Return whether there is output, or may be later."""
        self._job: Job = job
        self._channel.observe(job)
        return not is_final(job) or bool(await self._read(1))

    async def _read_job(self) -> Job | None:
        """Return the job, or None if it was deleted, even if its id was used again."""
        job = await self._hub.store().get(self._channel.job_id)
        return job if is_same(job, self._job) else None

    async def _read(self, limit: int) -> list[bytes]:
        chunks = await read_output(self._hub.store(), self._channel.job_id, self._after, limit)
        if limit > 1 and chunks:
            self._after = OutputPosition.parse(chunks[-1].position)
        return [sse.frame("output", compact_json(chunk.to_dict()).encode(), chunk.position) for chunk in chunks]

    async def write(self, send: Send) -> None:
        """Send what there is, and then each new chunk until the job has ended."""
        body = sse.RETRY
        while True:
            # In this order: what is written after the job was read wakes this client once more.
            job = await self._read_job()
            while job is not None and (chunks := await self._read(LIST_LIMIT_MAX)):
                # Chunks only have the id: these may be of another job, which was created since the job was read.
                job = await self._read_job()
                if job is not None:
                    await self.send(send, body + b"".join(chunks))
                    body = b""
            if job is None or is_final(job):
                deleted = sse.frame("deleted", b"{}") if job is None else b""
                await self.send(send, body + deleted + sse.END.wire, more=False)
                return
            if body:
                await self.send(send, body)
            body = b""
            if not await self._has_news(send):
                await self.send(send, b"", more=False)
                return

    async def _has_news(self, send: Send) -> bool:
        """Wait for news of the output or of the end of the job; return False if the server shuts down."""
        while True:
            frames = await self.take()
            if any(frame.kind == "close" for frame in frames):
                return False
            if any(frame.always or frame.kind == "output" for frame in frames):
                return True
            if alive := b"".join(frame.wire for frame in frames if frame.wire == sse.KEEP_ALIVE):
                await self.send(send, alive)
