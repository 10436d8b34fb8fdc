"""The methods of clients for the output of a job."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from milepost.client.transport import Call, Requests, follow_stream, job_path, send
from milepost.core.codecs import decode_dataclass
from milepost.core.defaults import LIST_LIMIT_MAX
from milepost.core.errors import JobNotFoundError
from milepost.core.output import OutputChunk, OutputPosition


class OutputCalls(Requests):
    """The methods of AsyncJobManager for output, over HTTP."""

    async def output(self, job_id: str, after: str | None = None, limit: int = LIST_LIMIT_MAX) -> list[OutputChunk]:
        """See AsyncJobManager.output."""
        params = {"limit": min(limit, LIST_LIMIT_MAX)} | _after(after)
        headers = {"Accept": "application/json"}
        call = Call("GET", job_path(job_id, "/output"), params, headers=headers, job_id=job_id)
        return [decode_dataclass(OutputChunk, one) for one in (await send(self._transport, call)).json()]

    def follow_output(self, job_id: str, after: str | None = None) -> AsyncIterator[OutputChunk]:
        """See AsyncJobManager.follow_output; a broken connection is resumed where it ended."""
        seen = _after(after).get("after")
        return _chunks(job_id, follow_stream(self._transport, job_id, job_path(job_id, "/output"), seen))


async def _chunks(job_id: str, messages: AsyncGenerator[tuple[str, str, str | None]]) -> AsyncIterator[OutputChunk]:
    async with aclosing(messages):
        async for kind, data, _ in messages:
            if kind == "deleted":
                raise JobNotFoundError(job_id)
            yield decode_dataclass(OutputChunk, json.loads(data))


def _after(after: str | None) -> dict[str, str]:
    """Return the parameter for a position. Raises InvalidInputError."""
    return {} if after is None else {"after": str(OutputPosition.parse(after))}
