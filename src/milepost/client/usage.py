"""The methods of clients for usage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from milepost.client.transport import Call, Requests, job_path, send
from milepost.core.serialization import validate_labels
from milepost.core.usage_report import JobUsage, UsageReport, validate_by, validate_day


class UsageCalls(Requests):
    """The methods of AsyncJobManager for usage, over HTTP."""

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
            params["job_type"] = job_type
        if labels:
            params["label"] = [f"{name}={value}" for name, value in validate_labels(labels).items()]
        return UsageReport.from_dict(await self.request("GET", "/api/usage", params=params))

    async def job_usage(self, job_id: str) -> JobUsage:
        """See AsyncJobManager.job_usage."""
        call = Call("GET", job_path(job_id, "/usage"), job_id=job_id)
        return JobUsage(**(await send(self._transport, call)).json())
