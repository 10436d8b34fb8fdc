"""The purge of the SQLite store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from milepost.core.placement import groups_of
from milepost.core.record_codec import unpack
from milepost.stores.retention import OPEN, Kin, parent_by_run, purgeable
from milepost.stores.sqlite.transaction import WriteTransaction
from milepost.stores.sync_bridge import run_sync


def purge(tx: WriteTransaction, bound: int, most: int) -> tuple[int, int, bool]:
    """Remove up to `most` records whose retention is counted since before `bound`.

    Return how many were removed, of how many others the retention is counted anew, and whether there were any.
    """
    due = [job_id for (job_id,) in tx.all("purge_ended", (bound, most))]
    if not due:
        return 0, 0, False
    gone, later = run_sync(purgeable(_Family(tx), due, bound=bound, now=tx.now, limit=most))
    for job_id, since in later.items():
        tx.run("count_retention", (since, job_id))
    for job_id in gone:
        row = tx.row(job_id)
        if row is not None:
            tx.remove(row, row.record() if "\nl=" in f"\n{row.body}" else {})
            tx.remove_values(job_id)
    return len(gone), len(later), bool(gone or later)


class _Family:
    """The records of a transaction and their children."""

    def __init__(self, tx: WriteTransaction) -> None:
        self._tx = tx
        self._awaited: dict[str, bool] = {}

    async def kin(self, job_ids: Sequence[str]) -> Mapping[str, Kin]:
        found = {}
        for job_id in job_ids:
            row = self._tx.one("kin", {"id": job_id, "open": OPEN})
            if row is not None:
                since, body, below = row
                record = unpack(body)
                awaited = any(map(self._is_awaited, groups_of(job_id, record)))
                found[job_id] = Kin(parent_by_run(record), since, awaited, below)
        return found

    async def children(self, job_id: str, limit: int) -> list[str]:
        return [child for (child,) in self._tx.all("members_of", (f"children:{job_id}", limit))]

    def _is_awaited(self, group: str) -> bool:
        if group not in self._awaited:
            self._awaited[group] = self._tx.one("is_awaited", {"group": group}) is not None
        return self._awaited[group]
