"""Limit the pending jobs and the job types of each principal. A request above a limit gets 429.

The counts are kept in this process, so a submit below the limit needs no extra round trip. Admins have no limits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from milepost.core.job import JobStatus
from milepost.settings import Settings
from milepost.stores.protocol import Store
from milepost.web.http.problems import Problem
from milepost.web.security.principals import Principal

MAX_JOBS_CHECKED = 50
"""How many counted jobs one request re-checks at the limit. Jobs that are no longer pending are dropped."""
MAX_PRINCIPALS = 10_000


def limit_reached(what: str, limit: int, retry_after: int) -> Problem:
    """Return the 429 for a limit that is reached."""
    return Problem(429, f"{what} (limit {limit:,})", headers={"Retry-After": str(retry_after)}, limit=limit)


@dataclass(slots=True)
class _Usage:
    """What one principal has created through this process."""

    jobs: OrderedDict[str, None] = field(default_factory=OrderedDict)
    types: set[str] = field(default_factory=set)


class Quotas:
    """Counts what each principal has created. `settings` and `store` are called when first needed."""

    def __init__(self, settings: Callable[[], Settings], store: Callable[[], Store]) -> None:
        self._settings = settings
        self._store = store
        self._held: OrderedDict[str, _Usage] = OrderedDict()

    async def before_submit(self, principal: Principal) -> None:
        """Check that one more pending job is within the limit. Raises Problem 429."""
        if await self.available(principal, 1) < 1:
            raise limit_reached("Too many pending jobs", self._settings().max_pending, 5)

    async def available(self, principal: Principal, wanted: int) -> int:
        """Return how many of the wanted pending jobs are within the limit."""
        limit = self._settings().max_pending
        if principal.unlimited or len(jobs := self._of(principal).jobs) + wanted <= limit:
            return wanted
        for job_id in list(islice(jobs, MAX_JOBS_CHECKED)):
            job = await self._store().get(job_id)
            if job is None or job.status is not JobStatus.PENDING:
                jobs.pop(job_id, None)
            elif job_id in jobs:
                jobs.move_to_end(job_id)
        return max(0, min(wanted, limit - len(jobs)))

    def submitted(self, principal: Principal, job_id: str) -> None:
        """Count a submitted job."""
        if not principal.unlimited:
            self._of(principal).jobs[job_id] = None

    async def before_create(self, principal: Principal, job_type: str) -> None:
        """Check that one more job type is within the limit. Raises Problem 429."""
        limit = self._settings().max_types
        if principal.unlimited or job_type in (types := self._of(principal).types):
            return
        if len(types) >= limit:
            types &= {name for name, _ in await self._store().counts()}
        if len(types) >= limit:
            raise limit_reached("Too many job types", limit, 60)
        types.add(job_type)

    def _of(self, principal: Principal) -> _Usage:
        held = self._held.setdefault(principal.name, _Usage())
        self._held.move_to_end(principal.name)
        while len(self._held) > MAX_PRINCIPALS:
            self._held.popitem(last=False)
        return held
