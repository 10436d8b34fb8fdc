"""The limits of the PostgreSQL store."""

from __future__ import annotations

from milepost.core.limits import KEEP, Keep, Limit, Rate, by_key, with_keys
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Database
from milepost.stores.postgres.namespace import Namespace


class PostgresLimits:
    """Limits, and the leases that they count."""

    _db: Database
    _namespace: Namespace

    async def limits(self) -> dict[str, Limit]:
        (rows,) = await self._db.run(("limits", None))
        return limits_of(rows)

    async def set_limit(
        self,
        key: str,
        running: int | Keep | None,
        paused: bool | Keep,
        per_partition: int | Keep | None = None,
        rate: Rate | Keep | None = KEEP,
    ) -> None:
        given = {"most": running, "paused": paused, "per_partition": per_partition, "rate": rate}
        limit = Limit().changed(running, paused, per_partition, rate)
        values = {"key": key, "most": limit.running, "paused": limit.paused, "per_partition": limit.per_partition}
        keeps = {f"keep_{name}": value is KEEP for name, value in given.items()}
        spaced = {name: limit.rate and getattr(limit.rate, name) for name in ("spacing", "tolerance")}
        put = {**values, **keeps, **spaced, "rate": limit.rate and str(limit.rate)}
        await self._db.run(("limit_put", put), ("limit_delete_empty", {"key": key}))
        self._wake_workers()

    async def close_gate(self, key: str, micros: int) -> None:
        closed = {"key": key, "micros": micros}
        await self._db.run(("gate_close", closed) if micros else ("gate_delete", {"key": key}))
        self._wake_workers()

    def _wake_workers(self) -> None:
        self._namespace.notifications.notify(has_events=False, wakes_workers=True)

    async def claimable_jobs(self) -> dict[str, int]:
        (rows,) = await self._db.run(("claimable_jobs", None))
        return by_key(rows)

    async def held_slots(self) -> dict[str, int]:
        (rows,) = await self._db.run(("all_held_slots", None))
        return with_keys(rows)


def limits_of(rows: Rows) -> dict[str, Limit]:
    """Return the limits by key of rows of the statement `limits`."""
    return {
        key: Limit(most, paused, per_partition, rate and Rate.parse(rate), gate, opens)
        for key, most, paused, per_partition, rate, gate, opens in rows
    }
