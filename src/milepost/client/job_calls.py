"""The methods of clients for the answers, pauses, output and usage of jobs."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import date
from typing import Any

from milepost.client.transport import Call, Requests, follow_stream, job_path, send
from milepost.core.codecs import decode_dataclass
from milepost.core.defaults import LIST_LIMIT_MAX
from milepost.core.errors import JobNotFoundError
from milepost.core.job import Job
from milepost.core.ledger import JobUsage, UsageReport, validate_by, validate_day
from milepost.core.output import OutputChunk, OutputPosition
from milepost.core.serialization import validate_job_type, validate_labels
from milepost.core.values import RetryCheck


class JobCalls(Requests):
    """Methods of AsyncJobManager over HTTP: `answer`, `pause`, `resume`, `output`, `follow_output`, `usage`, `job_usage`, `retry_check`."""

    async def _job(self, call: Call) -> Job:
        raise NotImplementedError

    async def answer(self, job_id: str, key: str, value: Any, *, by: str | None = None) -> Job:
        """See AsyncJobManager.answer; the server sets `by`."""
        return await self._change(job_id, "/answers", {"key": key, "value": value})

    async def pause(self, job_id: str, *, by: str | None = None) -> Job:
        """See AsyncJobManager.pause; the server sets `by`."""
        return await self._change(job_id, "/pause", {})

    async def resume(self, job_id: str, *, by: str | None = None) -> Job:
        """See AsyncJobManager.resume; the server sets `by`."""
        return await self._change(job_id, "/resume", {})

    async def _change(self, job_id: str, path: str, body: dict[str, Any]) -> Job:
        return await self._job(Call("POST", job_path(job_id, path), body=body, job_id=job_id, safe=False))

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

    async def usage(
        self,
        *,
        by: str = "type",
        since: date | str | None = None,
        until: date | str | None = None,
        job_type: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> UsageReport:
        """See AsyncJobManager.usage."""
        params: dict[str, Any] = {"by": validate_by(by)}
        for name, day in (("since", validate_day(since, "since")), ("until", validate_day(until, "until"))):
            if day is not None:
                params[name] = day.isoformat()
        if job_type is not None:
            params["job_type"] = validate_job_type(job_type)
        if labels:
            params["label"] = [f"{name}={value}" for name, value in validate_labels(labels).items()]
        return UsageReport.from_dict(await self.request("GET", "/api/usage", params=params))

    async def job_usage(self, job_id: str) -> JobUsage:
        """See AsyncJobManager.job_usage."""
        call = Call("GET", job_path(job_id, "/usage"), job_id=job_id)
        return JobUsage(**(await send(self._transport, call)).json())

    async def retry_check(self, job_id: str) -> RetryCheck:
        """See AsyncJobManager.retry_check."""
        call = Call("GET", job_path(job_id, "/retry-check"), job_id=job_id)
        found: RetryCheck = decode_dataclass(RetryCheck, (await send(self._transport, call)).json())
        return found


async def _chunks(job_id: str, messages: AsyncGenerator[tuple[str, str, str | None]]) -> AsyncIterator[OutputChunk]:
    async with aclosing(messages):
        async for kind, data, _ in messages:
            if kind == "deleted":
                raise JobNotFoundError(job_id)
            yield decode_dataclass(OutputChunk, json.loads(data))


def _after(after: str | None) -> dict[str, str]:
    """Return the parameter for a position. Raises InvalidInputError."""
    return {} if after is None else {"after": str(OutputPosition.parse(after))}
