"""The output of one job as server-sent events. The hub wakes the readers, which read what they miss from the store."""

from __future__ import annotations

from starlette.types import Send

from milepost.core.defaults import LIST_LIMIT_MAX
from milepost.core.job import Job
from milepost.core.output import OutputPosition
from milepost.core.serialization import compact_json
from milepost.manager.output import read_output
from milepost.manager.watch import is_final, is_same
from milepost.web.live import sse
from milepost.web.live.hub import JobReader


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
