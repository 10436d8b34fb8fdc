"""The methods of clients for limits."""

from __future__ import annotations

from urllib.parse import quote

from milepost.client.transport import Call, Requests, send
from milepost.core.codecs import decode_dataclass
from milepost.core.limits import KEEP, KEY_BYTES, Keep, LimitState, Rate, refuse_no_limit, validate_limit
from milepost.core.serialization import Duration, seconds, validate_key
from milepost.stores.sync_bridge import blocking


class LimitCalls(Requests):
    """The methods of AsyncJobs for limits, over HTTP."""

    async def limit(
        self, key: str, *, running: int | None = None, per_partition: int | None = None, rate: str | None = None
    ) -> None:
        """See AsyncJobs.limit."""
        validate_limit(key, running, per_partition)
        refuse_no_limit(running, per_partition, rate)
        body = {"running": running, "per_partition": per_partition, "rate": rate and str(Rate.parse(rate))}
        await self.request("PUT", _path(key), body=body)

    async def limits(self) -> list[LimitState]:
        """See AsyncJobs.limits."""
        return [decode_dataclass(LimitState, one) for one in (await self.request("GET", "/api/limits"))["limits"]]

    async def remove_limit(self, key: str) -> None:
        """See AsyncJobs.remove_limit."""
        await self.request("DELETE", _path(key))

    async def close_gate(self, key: str, delay: Duration) -> None:
        """See AsyncJobs.close_gate."""
        validate_key(key, "key", KEY_BYTES)
        await self.request("PUT", _path(key, "gates"), body={"seconds": seconds(delay, "delay")})

    async def open_gate(self, key: str) -> None:
        """See AsyncJobs.open_gate."""
        await self.request("DELETE", _path(key, "gates"))

    async def set_limit(self, job_type: str, limit: int | Keep | None = None, *, paused: bool | Keep = False) -> None:
        """See AsyncJobs.set_limit."""
        given = {"concurrency": limit, "paused": paused}
        body = {name: value for name, value in given.items() if value is not KEEP}
        await send(self._transport, Call("PATCH", f"/api/job-types/{quote(job_type)}", body=body))


class BlockingLimitCalls:
    """The methods of Jobs for limits, over HTTP: `LimitCalls` for blocking code."""

    set_limit = blocking(LimitCalls.set_limit)
    limit = blocking(LimitCalls.limit)
    limits = blocking(LimitCalls.limits)
    remove_limit = blocking(LimitCalls.remove_limit)
    close_gate = blocking(LimitCalls.close_gate)
    open_gate = blocking(LimitCalls.open_gate)


def _path(key: str, kind: str = "limits") -> str:
    return f"/api/{kind}/{quote(key, safe='')}"
