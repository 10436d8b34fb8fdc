"""The limits of the PostgreSQL store."""

from __future__ import annotations

from milepost.core.limits import Limit, with_keys
from milepost.stores.postgres.database import Database
from milepost.stores.postgres.namespace import Namespace


class PostgresLimits:
    """Limits, and the leases that they count."""

    _db: Database
    _namespace: Namespace

    async def limits(self) -> dict[str, Limit]:
        (rows,) = await self._db.run(("limits", None))
        return {key: Limit(*row) for key, *row in rows}

    async def set_limit(self, key: str, running: int | None, paused: bool, per_partition: int | None = None) -> None:
        limit = Limit(running, paused, per_partition)
        await self._db.run(
            (
                "limit_delete" if limit == Limit() else "limit_put",
                {"key": key, "most": running, "paused": paused, "per_partition": per_partition},
            )
        )
        self._namespace.notifications.notify(has_events=False, wakes_workers=True)

    async def held_slots(self) -> dict[str, int]:
        (rows,) = await self._db.run(("all_held_slots", None))
        return with_keys(rows)
