"""The methods of a client for jobs that wait for a user: answer a question, pause, resume."""

from __future__ import annotations

from typing import Any

import httpx

from milepost.client.decoding import decode_job
from milepost.client.transport import Call, job_path
from milepost.core.job import Job


class WaitingCalls:
    """Adds `answer`, `pause` and `resume` to a client."""

    async def _with_job(self, call: Call) -> httpx.Response:
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
        call = Call("POST", job_path(job_id, path), body=body, job_id=job_id, safe=False)
        return decode_job((await self._with_job(call)).json())
