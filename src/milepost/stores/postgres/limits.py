"""The limits of the PostgreSQL store."""

from __future__ import annotations

from milepost.core.limits import KEEP, Keep, Limit, with_keys
from milepost.stores.postgres.database import Database
from milepost.stores.postgres.namespace import Namespace


class PostgresLimits:
    """Limits, and the leases that they count."""

    _db: Database
    _namespace: Namespace

    async def limits(self) -> dict[str, Limit]:
        (rows,) = await self._db.run(("limits", None))
        return {key: Limit(*row) for key, *row in rows}

    async def set_limit(
        self, key: str, running: int | Keep | None, paused: bool | Keep, per_partition: int | Keep | None = None
    ) -> None:
        given = {"most": running, "paused": paused, "per_partition": per_partition}
        limit = Limit().changed(running, paused, per_partition)
        values = {"key": key, "most": limit.running, "paused": limit.paused, "per_partition": limit.per_partition}
        keeps = {f"keep_{name}": value is KEEP for name, value in given.items()}
        await self._db.run(("limit_put", {**values, **keeps}), ("limit_delete_empty", {"key": key}))
        self._namespace.notifications.notify(has_events=False, wakes_workers=True)

    async def held_slots(self) -> dict[str, int]:
        (rows,) = await self._db.run(("all_held_slots", None))
        return with_keys(rows)
