"""The output of one job as server-sent events. The hub wakes the readers, which read what they miss from the store."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Send

from milepost.core.defaults import LIST_LIMIT_MAX
from milepost.core.job import Job
from milepost.core.output import OutputPosition
from milepost.core.serialization import compact_json
from milepost.manager.output import read_output
from milepost.manager.watch import is_final, is_same
from milepost.web.http.problems import not_found
from milepost.web.live import sse
from milepost.web.live.hub import Hub
from milepost.web.live.sse import StreamClient
from milepost.web.security.principals import ANYONE, Principal


class OutputStream(StreamClient):
    """The streaming response with the output of one job. `open_output` creates it."""

    def __init__(
        self, hub: Hub, job_id: str, after: OutputPosition, principal: Principal, allowed: sse.Allowed | None
    ) -> None:
        super().__init__(principal, allowed)
        self._hub = hub
        self._after = after
        self._channel = hub.listen(job_id, self)

    def release(self) -> None:
        """Unsubscribe the client."""
        self._hub.stop_listening(self._channel, self)
        self._hub.leave(self.principal)

    async def open(self) -> bool:
        """Read the job; return whether the stream has anything to send, now or later. Raises Problem 404."""
        job = await self._hub.store().get(self._channel.job_id)
        if job is None or not self.principal.sees(job):
            raise not_found()
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


async def open_output(
    hub: Hub,
    job_id: str,
    after: OutputPosition,
    *,
    reconnect: bool = False,
    principal: Principal = ANYONE,
    allowed: sse.Allowed | None = None,
) -> Response:
    """Open the stream of the output of a job after a position. Raises Problem 404 if the principal sees no such job.

    The response is a 204 if the client reconnected and has read all output of an ended job.
    """
    await hub.enter(principal)
    stream = OutputStream(hub, job_id, after, principal, allowed)
    try:
        has_news = await stream.open()
    except BaseException:
        stream.release()
        raise
    if reconnect and not has_news:
        stream.release()
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    return stream
