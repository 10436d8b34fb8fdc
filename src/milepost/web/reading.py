"""Reading lists without holding up the event loop. Owns the pauses; the walk is `stores.query.find`."""

from __future__ import annotations

import asyncio
from typing import Any

from milepost.core.job import Job
from milepost.stores.protocol import Position, Select, Store


class Patient:
    """A store that lets others run between the batches of a long walk; a store in memory would never pause."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def select(self, select: Select, limit: int, after: Position | None = None) -> list[Job]:
        """See Store.select."""
        await asyncio.sleep(0)
        return await self._store.select(select, limit, after)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)
