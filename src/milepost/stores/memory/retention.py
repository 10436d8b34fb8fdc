"""What a purge of the memory store asks about records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from milepost.core.placement import AFTER, groups_of, is_of_open_batch
from milepost.core.transitions.table import TERMINAL
from milepost.stores.memory.state import MemoryState
from milepost.stores.retention import OPEN, Kin, parent_by_run


class MemoryFamily:
    """The records of a memory store and their children. Use it with the lock held."""

    def __init__(self, memory: MemoryState) -> None:
        self._memory = memory
        self._awaited: dict[str, bool] = {}

    async def kin(self, job_ids: Sequence[str]) -> Mapping[str, Kin]:
        """Return what a purge asks about these records, without those that do not exist."""
        records = self._memory.records
        return {job_id: self._kin(job_id) for job_id in job_ids if job_id in records}

    async def children(self, job_id: str, limit: int) -> list[str]:
        """Return the first children of a record, in the order of their ids."""
        return sorted(self._children(job_id))[:limit]

    def _kin(self, job_id: str) -> Kin:
        record = self._memory.records[job_id]
        below = None
        if ("member", f"children:{job_id}", "") in self._memory.indexes:
            below = OPEN
        elif made := self._children(job_id):
            below = max(OPEN if since is None else since for since in map(self._since, made))
        awaited = any(map(self._is_awaited, groups_of(job_id, record)))
        return Kin(parent_by_run(record), self._since(job_id), awaited, below)

    def _children(self, job_id: str) -> list[str]:
        orders = (
            self._memory.indexes.get(("member", f"children:{job_id}", status), ()) for status in (*TERMINAL, "closed")
        )
        return [str(order[0]) for found in orders for order in found]

    def _since(self, job_id: str) -> int | None:
        ended = self._memory.records[job_id].get("completed")
        return None if ended is None else self._memory.kept_since.get(job_id, int(ended))

    def _is_awaited(self, group: str) -> bool:
        if group not in self._awaited:
            self._awaited[group] = self._has_open_waiter(group)
        return self._awaited[group]

    def _has_open_waiter(self, group: str) -> bool:
        records = self._memory.records
        if is_of_open_batch(group, records):
            return True
        waiters = self._memory.indexes.get(("label", AFTER + group), ())
        return any("completed" not in records[str(order[-1])] for order in waiters)
