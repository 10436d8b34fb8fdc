"""Limits on the jobs of all workers that run at once."""

from __future__ import annotations

from milepost.core.limits import KEEP, Keep, LimitState, limit_states, validate_limit
from milepost.stores.protocol import Store


class LimitMethods:
    """The methods of AsyncJobs for limits."""

    store: Store

    async def limit(self, key: str, *, running: int | None = None, per_partition: int | None = None) -> None:
        """Let at most `running` jobs with the limit key `key` run at once, and `per_partition` of each partition.

        ``jobs.limit("embed", running=8, per_partition=2)``

        A limit holds over all workers, and replaces an earlier one of the key; None is no limit. The limit key of a job is
        its type unless its `limit_key` is set, and its `partition`, for example a tenant, is set at submit. A lower limit
        stops no job. Raises InvalidInputError.
        """
        validate_limit(key, running, per_partition)
        await self.store.set_limit(key, running, KEEP, per_partition)

    async def limits(self) -> list[LimitState]:
        """Return the limits that are set, by key, with the number of jobs that run under each."""
        return limit_states(await self.store.limits(), await self.store.held_slots())

    async def remove_limit(self, key: str) -> None:
        """Remove the limits of a limit key; a key without one is ignored."""
        await self.limit(key)

    async def set_limit(self, job_type: str, limit: int | Keep | None = None, *, paused: bool | Keep = False) -> None:
        """Set the maximum number of concurrent runs of a type over all workers, or pause it; (None, False) removes both.

        It is the limit `running` of the limit key of that name; its `per_partition` stays. `milepost.core.limits.KEEP`
        leaves a value as it is.
        """
        validate_limit(job_type, None if limit is KEEP else limit, None)
        await self.store.set_limit(job_type, limit, paused, KEEP)
