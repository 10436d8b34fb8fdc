"""Limits on the jobs of all workers that run at once."""

from __future__ import annotations

from milepost.core.limits import KEEP, KEY_BYTES, Keep, LimitState, Rate, limit_states, refuse_no_limit, validate_limit
from milepost.core.serialization import Duration, seconds, validate_key
from milepost.stores.protocol import Store


class LimitMethods:
    """The methods of AsyncJobs for limits."""

    store: Store

    async def limit(
        self, key: str, *, running: int | None = None, per_partition: int | None = None, rate: str | None = None
    ) -> None:
        """Let at most `running` jobs with the limit key `key` run at once, `per_partition` of each partition, and start
        at the `rate`, a number of starts per period: ``500/min``, ``10/s`` or ``1000/15m``.

        ``jobs.limit("embed", running=8, per_partition=2, rate="500/min")``

        A limit holds over all workers, and replaces an earlier one of the key; None is no limit. The limit key of a job is
        its type unless its `limit_key` is set, and its `partition`, for example a tenant, is set at submit. A lower limit
        stops no job. Raises InvalidInputError, also if none of the three is given.
        """
        validate_limit(key, running, per_partition)
        refuse_no_limit(running, per_partition, rate)
        parsed = None if rate is None else Rate.parse(rate)
        await self.store.set_limit(key, running, KEEP, per_partition, parsed)

    async def limits(self) -> list[LimitState]:
        """Return the limits that are set, by key, with the numbers of running and claimable jobs under each."""
        return await read_limit_states(self.store)

    async def remove_limit(self, key: str) -> None:
        """Remove the limits of a limit key; a key without one is ignored."""
        validate_limit(key, None)
        await self.store.set_limit(key, None, KEEP, None, None)

    async def close_gate(self, key: str, delay: Duration) -> None:
        """Let no job with the limit key `key` start for `delay` (seconds, a timedelta or text such as "30s").

        Running jobs continue. A gate that is closed for longer stays so. A run closes the gate of its own API with
        ``raise Snooze("30s", gate="openai")``. Raises InvalidInputError.
        """
        validate_key(key, "key", KEY_BYTES)
        await self.store.close_gate(key, max(1, int(seconds(delay, "delay") * 1_000_000)))

    async def open_gate(self, key: str) -> None:
        """Let jobs with the limit key `key` start again; an open gate is ignored."""
        validate_key(key, "key", KEY_BYTES)
        await self.store.close_gate(key, 0)

    async def set_limit(self, job_type: str, limit: int | Keep | None = None, *, paused: bool | Keep = False) -> None:
        """Set the maximum number of concurrent runs of a type over all workers, or pause it; (None, False) removes both.

        It is the limit `running` of the limit key of that name; its `per_partition` stays. `milepost.core.limits.KEEP`
        leaves a value as it is.
        """
        validate_limit(job_type, None if limit is KEEP else limit, None)
        await self.store.set_limit(job_type, limit, paused, KEEP)


async def read_limit_states(store: Store) -> list[LimitState]:
    """Return the limits of a store with their use."""
    return limit_states(await store.limits(), await store.held_slots(), await store.claimable_jobs(), await store.now())
