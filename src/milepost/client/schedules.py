"""The methods of clients for schedules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from milepost.client.decoding import decode_job
from milepost.client.transport import Call, Requests, send
from milepost.core.job import Job
from milepost.core.options import json_object
from milepost.core.schedule import CatchUp, Overlap, Schedule
from milepost.core.serialization import seconds


class ScheduleCalls(Requests):
    """The methods of AsyncJobManager for schedules, and `add_schedule` of AsyncJobs, over HTTP."""

    async def list_schedules(self) -> list[Schedule]:
        """See AsyncJobManager.list_schedules."""
        return [Schedule.from_dict(one) for one in (await self.request("GET", "/api/schedules"))["schedules"]]

    async def get_schedule(self, name: str) -> Schedule:
        """See AsyncJobManager.get_schedule."""
        return Schedule.from_dict(await self.request("GET", _path(name)))

    async def add_schedule(
        self,
        name: str,
        target: str,
        *,
        cron: str | None = None,
        every: float | timedelta | str | None = None,
        tz: str = "UTC",
        catch_up: CatchUp = "last",
        overlap: Overlap = "skip",
        params: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Schedule:
        """Make a schedule, or change the one of this name, and return it: `AsyncJobs.add_schedule` of a published type."""
        given = dict(options or {})
        body = {
            "job_type": target, "cron": cron, "every": None if every is None else seconds(every, "every"), "tz": tz,
            "catch_up": catch_up, "overlap": overlap, "params": json_object(params, "params"), "labels": given.pop("labels", None),
            "options": given,
        }  # fmt: skip
        call = Call("PUT", _path(name), {}, body, safe=True)
        return Schedule.from_dict((await send(self._transport, call)).json())

    async def pause_schedule(self, name: str) -> Schedule:
        """See AsyncJobManager.pause_schedule."""
        return Schedule.from_dict(await self.request("POST", f"{_path(name)}/pause"))

    async def resume_schedule(self, name: str) -> Schedule:
        """See AsyncJobManager.resume_schedule."""
        return Schedule.from_dict(await self.request("POST", f"{_path(name)}/resume"))

    async def fire_schedule(self, name: str) -> Job:
        """See AsyncJobManager.fire_schedule."""
        answer = await send(self._transport, Call("POST", f"{_path(name)}/fire"))
        return decode_job(answer.json())

    async def remove_schedule(self, name: str) -> None:
        """See AsyncJobManager.remove_schedule."""
        await self.request("DELETE", _path(name))


def _path(name: str) -> str:
    return f"/api/schedules/{quote(name, safe='')}"
