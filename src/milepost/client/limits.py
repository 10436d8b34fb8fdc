"""The methods of clients for limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from milepost.client.transport import Call, Transport, send
from milepost.core.codecs import decode_dataclass
from milepost.core.limits import KEEP, Keep, LimitState, validate_limit


class LimitCalls:
    """The methods of AsyncJobs for limits, over HTTP."""

    if TYPE_CHECKING:
        _transport: Transport

        async def request(
            self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None
        ) -> Any: ...

    async def limit(self, key: str, *, running: int | None = None, per_partition: int | None = None) -> None:
        """See AsyncJobs.limit."""
        validate_limit(key, running, per_partition)
        if running is None and per_partition is None:
            await self.remove_limit(key)
            return
        body = {"running": running, "per_partition": per_partition}
        await self.request("PUT", _path(key), body=body)

    async def limits(self) -> list[LimitState]:
        """See AsyncJobs.limits."""
        return [decode_dataclass(LimitState, one) for one in (await self.request("GET", "/api/limits"))["limits"]]

    async def remove_limit(self, key: str) -> None:
        """See AsyncJobs.remove_limit."""
        await self.request("DELETE", _path(key))

    async def set_limit(self, job_type: str, limit: int | Keep | None = None, *, paused: bool | Keep = False) -> None:
        """See AsyncJobs.set_limit."""
        given = {"concurrency": limit, "paused": paused}
        body = {name: value for name, value in given.items() if value is not KEEP}
        await send(self._transport, Call("PATCH", f"/api/job-types/{quote(job_type)}", body=body))


def _path(key: str) -> str:
    return f"/api/limits/{quote(key, safe='')}"
