"""Read the output of a job, and follow it while the job runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from milepost.core.defaults import LIST_LIMIT_MAX
from milepost.core.output import OutputChunk, OutputPosition, decode_chunks, output_prefix
from milepost.core.serialization import known_id
from milepost.manager.validation import page_size
from milepost.manager.watch import Sweep, is_final, records
from milepost.run.runtime import Runtime
from milepost.stores.protocol import Store
from milepost.stores.query import existing_job


class OutputMethods:
    """Adds `output` and `follow_output` to a manager."""

    store: Store
    runtime: Runtime

    async def output(self, job_id: str, after: str | None = None, limit: int = LIST_LIMIT_MAX) -> list[OutputChunk]:
        """Return up to `limit` chunks (at most 1,000) of what the job wrote with `run.output`, oldest first.

        `after` is the `position` of a chunk. The job keeps the newest text, 1 MiB by default, of all its attempts; the
        first text of a run that began anew has `starts_over`. Raises JobNotFoundError and InvalidInputError.
        """
        position = OutputPosition.parse(after)
        size = page_size(limit)
        chunks = await read_output(self.store, known_id(job_id), position, size)
        if not chunks:
            await existing_job(self.store, job_id)
        return chunks

    def follow_output(self, job_id: str, after: str | None = None) -> AsyncIterator[OutputChunk]:
        """Yield the chunks of the output of a job as they are written, until the job has ended; each once and in order.

        `after` is the `position` of a chunk, after which it continues. Raises JobNotFoundError, also if the job is deleted
        meanwhile, and InvalidInputError.
        """
        return follow_output(self.store, known_id(job_id), OutputPosition.parse(after), self.runtime.sweep_if_alone)


async def read_output(store: Store, job_id: str, after: OutputPosition, limit: int) -> list[OutputChunk]:
    """Return up to `limit` chunks after a position, in order."""
    # The chunk of the position itself may have grown.
    items = await store.kv_scan(output_prefix(job_id), after.before(job_id), limit + 1)
    own = after.key(job_id)
    return list(decode_chunks(((item.key, item.value) for item in items if item.key >= own), after))[:limit]


async def follow_output(store: Store, job_id: str, after: OutputPosition, sweep: Sweep) -> AsyncGenerator[OutputChunk]:
    """Yield the chunks after a position until the job has ended. Raises JobNotFoundError."""
    async with aclosing(records(store, job_id, None, sweep)) as jobs:
        async for job in jobs:
            while chunks := await read_output(store, job_id, after, LIST_LIMIT_MAX):
                for chunk in chunks:
                    yield chunk
                after = OutputPosition.parse(chunks[-1].position)
            if is_final(job):
                return
