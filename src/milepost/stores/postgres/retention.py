"""The purge of the PostgreSQL store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from milepost.core.placement import groups_of
from milepost.core.record_codec import unpack
from milepost.stores.postgres.batch import Batch
from milepost.stores.postgres.database import Transaction, for_rows
from milepost.stores.retention import OPEN, Kin, parent_by_run, purgeable


async def purge(tx: Transaction, bound: int, now: int, most: int) -> tuple[int, int, bool]:
    """Remove up to `most` records whose retention is counted since before `bound`.

    Return how many were removed, of how many others the retention is counted anew, and whether there were any.
    """
    (found,) = await tx.run(("purge_ended", {"bound": bound, "limit": most}))
    if not found:
        return 0, 0, False
    due = [job_id for (job_id,) in found]
    gone, later = await purgeable(_Family(tx), due, bound=bound, now=now, limit=most)
    kept = for_rows("count_retention", "ids since", sorted(later.items()))
    if not gone:
        await tx.commit(*kept)
        return 0, len(later), bool(later)
    (locked,) = await tx.run(("lock_ended", {"ids": gone}))
    ids = [job_id for (job_id,) in locked]
    # Asked again under the locks, because a child may have been retried before they were taken.
    records, ((read_at, _),), parents = await tx.run(
        ("batch", {"ids": ids}), ("now_and_fences", {"fences": 0}), ("parents_of_open", {"ids": ids})
    )
    batch = Batch(read_at)
    batch.know_records(records)
    removable = sorted(set(ids).difference(job_id for (job_id,) in parents))
    for job_id in removable:
        batch.remove(job_id)
    await tx.commit(*kept, *batch.statements())
    return len(removable), len(later), bool(removable or later)


class _Family:
    """The records of a transaction and their children."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def kin(self, job_ids: Sequence[str]) -> Mapping[str, Kin]:
        if not job_ids:
            return {}
        (rows,) = await self._tx.run(("kin", {"ids": list(job_ids), "open": OPEN}))
        records = {job_id: unpack(body) for job_id, _, body, _ in rows}
        groups = {job_id: groups_of(job_id, record) for job_id, record in records.items()}
        named = sorted({group for found in groups.values() for group in found})
        (found,) = await self._tx.run(("awaited_groups", {"groups": named}))
        awaited = {group for (group,) in found}
        return {
            job_id: Kin(parent_by_run(records[job_id]), since, not awaited.isdisjoint(groups[job_id]), below)
            for job_id, since, _, below in rows
        }

    async def children(self, job_id: str, limit: int) -> list[str]:
        (rows,) = await self._tx.run(("members_of", {"group": f"children:{job_id}", "limit": limit}))
        return [child for (child,) in rows]
