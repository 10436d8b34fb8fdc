"""Everything that does not concern single jobs: sweep, purge, trimming of the feed, rollups, health check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from milepost.core import rollups
from milepost.core.defaults import CLOCK_LEAD, FEED_KEPT, FEED_SECONDS, TURNS_KEPT
from milepost.core.ledger import MAX_ROWS, Book, first_kept
from milepost.core.placement import groups_of
from milepost.core.record_codec import unpack
from milepost.core.transitions.table import LOST_PARENT
from milepost.stores.postgres.batch import Batch
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Database, Part, Transaction, for_rows
from milepost.stores.postgres.namespace import Namespace
from milepost.stores.postgres.writes import job_of
from milepost.stores.protocol import LAYOUT, DueItem, HealthReport, SweepResult
from milepost.stores.retention import OPEN, Kin, parent_by_run, purgeable
from milepost.stores.sweep import Hold, Sweep, hold_of

TRIM_BATCH = 2_000
"""Events read per transaction."""

DROPPED = ("minutes_dropped", "hours_dropped")


async def sweep(tx: Transaction, namespace: Namespace, wanted: Sweep) -> SweepResult:
    """Return what is due, unless another sweep is running or ran within half the interval."""
    (((alone,),), found_state) = await tx.run(("sweep_alone", None), ("state_now", None))
    state: dict[str, int | None] = {name: value for name, value, _ in found_state}
    now, last = namespace.saw(found_state[0][2]), state["swept"]
    if not alone or wanted.skips(now, last):
        await tx.commit()
        return SweepResult([], skipped=True)
    since, held_until = state["held_since"], state["held_until"]
    hold = Hold(since, held_until) if since is not None and held_until is not None else None
    due_until, hold = hold_of(now, last, hold, wanted.lease)
    swept = {"names": ["swept", "held_since", "held_until"], "values": [now, *(hold or (None, None))]}
    parts: list[Part] = [("short_plans", None), ("state_put", swept), ("fold_counts", {"rows": MAX_ROWS})]
    if last is not None and last > now:
        bound = now + max(wanted.lease, CLOCK_LEAD)
        parts.append(("turn_back", {"bound": bound, "least": now + wanted.lease, "ahead": last - now}))
    (over,) = (await tx.run(*parts, ("open_ends_take", {"current": now // rollups.MINUTE})))[-1:]
    await _close_minutes(tx, {(minute, name, metric): n for minute, name, metric, n in over}, now, state)
    *found, closing = await tx.commit(
        *_due(wanted, now, due_until), ("closing", {"ids": [], "lost": LOST_PARENT.split()})
    )
    due: list[DueItem] = []
    more = False
    for rows, item in zip(found, (_lease, _deadline, _stale, _stopping), strict=True):
        due += [item(row) for row in rows[: wanted.limit]]
        more = more or len(rows) > wanted.limit
    closed = tuple(group for (group,) in closing)
    return SweepResult(due, held=due_until is None or due_until < now, more=more, closing=closed)


def _due(wanted: Sweep, now: int, due_until: int | None) -> list[Part]:
    most = wanted.limit + 1
    leases = {"until": due_until if due_until is not None else 0, "limit": most if due_until is not None else 0}
    return [
        ("sweep_leases", leases),
        ("sweep_deadline", {"now": now, "limit": most}),
        ("sweep_stale", {"now": now, "limit": most, **wanted.others(now)}),
        ("sweep_draining", leases),
    ]


def _lease(row: tuple[Any, ...]) -> DueItem:
    job = job_of(row[1:])
    return DueItem("lease", job.job_id, job, sibling_leases=row[0])


def _deadline(row: tuple[Any, ...]) -> DueItem:
    return DueItem("deadline", row[1], job_of(row))


def _stale(row: tuple[Any, ...]) -> DueItem:
    return DueItem("stale", row[1], job_of(row))


def _stopping(row: tuple[Any, ...]) -> DueItem:
    return DueItem("stopping", row[0], job_of(row[2:]) if row[2] is not None else None, row[1])


async def _close_minutes(
    tx: Transaction, over: dict[tuple[int, str, str], int], now: int, state: dict[str, int | None]
) -> None:
    """Add the ends of the minutes that are over to the rollups."""
    if not over:
        return
    for hourly in (False, True):
        added = rollups.by_number(over, hourly=hourly)
        numbers = sorted(added)
        (rows,) = await tx.run(("rollups_some", {"hourly": hourly, "numbers": numbers}))
        texts: dict[int, str] = dict(rows)
        bodies = [rollups.merge(texts.get(number, ""), added[number]) for number in numbers]
        put = {"hourly": hourly, "numbers": numbers, "bodies": bodies}
        _, sizes = await tx.run(("rollups_put", put), ("rollups_sizes", {"hourly": hourly}))
        if gone := rollups.outdated(dict(sizes), now, hourly=hourly):
            dropped = max(*gone, state[DROPPED[hourly]] or 0)
            await tx.run(
                ("rollups_delete", {"hourly": hourly, "numbers": gone}),
                ("state_put", {"names": [DROPPED[hourly]], "values": [dropped]}),
            )


async def read_rollups(db: Database, since: int, *, hourly: bool) -> rollups.Rollups:
    """Return the rollups since a time."""
    closed, still_open, state, ((now,),) = await db.run(
        ("rollups_get", {"hourly": hourly, "since": since // rollups.RESOLUTIONS[hourly].width}),
        ("open_ends_get", {"since": since // rollups.MINUTE}),
        ("state", None),
        ("now", None),
    )
    dropped: dict[str, int | None] = dict(state)
    complete = rollups.complete_since(db.namespace.saw(now), dropped[DROPPED[hourly]], hourly=hourly)
    ends = [(minute, name, metric, n) for minute, name, metric, n in still_open]
    return rollups.Rollups(rollups.assembled([(n, text) for n, text in closed], ends, hourly=hourly), complete)


async def read_usage(db: Database, books: Sequence[str]) -> list[Book]:
    """Return books of the ledger of usage."""
    (rows,) = await db.run(("usage", {"books": list(books)}))
    found: dict[str, dict[tuple[str, str], int]] = {book: {} for book in books}
    for book, series, name, amount in rows:
        found[book][series, name] = amount
    return [found[book] for book in books]


async def forget(tx: Transaction, now: int) -> None:
    """Delete what is kept for a time or up to a number, apart from records and events."""
    (idle,) = await tx.run(("subqueues_lock", {"turns": TURNS_KEPT}))
    names = [name for (name,) in idle]
    await tx.commit(("subqueues_forget", {"names": names}), ("forget", {"now": now, "first_day": first_kept(now)}))


async def trim(tx: Transaction, now: int, *, late: bool) -> bool:
    """Delete the next events that left the feed and are in no job's list; return whether there may be more.

    `late`: also those of transactions that committed after their events had left. That reads all dead rows of the feed, of
    which there are many while a transaction stays open.
    """
    bound = now - int(FEED_SECONDS * 1_000_000)
    limits = {"kept": FEED_KEPT, "bound": bound, "batch": TRIM_BATCH}
    ((alone,),), state, ((until, xid, end),) = await tx.run(
        ("sweep_alone", None), ("state_now", None), ("trim_bound", limits)
    )
    if not alone or until is None:
        return False
    before = {name: value or 0 for name, value, _ in state}
    trimmed = max(one for one in (0, xid or 0, before["trimmed_xid"]) if one < end)  # others are of a restored dump
    kept = {"names": ["trimmed", "trimmed_xid"], "values": [until, trimmed]}
    after = 0 if late else before["trimmed"]
    await tx.commit(("trim", {"after": after, "until": until}), ("state_put", kept))
    return bool(until - before["trimmed"] >= TRIM_BATCH)


async def check_health(db: Database) -> HealthReport:
    """Return the health of the server and of the schema."""
    (rows,) = await db.run(("health", {"schema": db.namespace.schema}))
    return health_of(rows, db.namespace)


LONG_TRANSACTION = 300
"""Seconds after which an open transaction is reported: dead rows cannot be removed while it lasts."""


def health_of(rows: Rows, namespace: Namespace) -> HealthReport:
    """Return the health report for the row of the statement `health`."""
    (
        (
            version, _, fsync, commit, full_page_writes, is_standby, encoding, layout, size, oldest, blind, dead,
            vacuumed,
        ),
    ) = rows  # fmt: skip
    warnings = []
    if fsync != "on" or full_page_writes != "on":
        warnings.append("fsync or full_page_writes is off: a power loss may damage the database; set both to on")
    if commit == "off":
        warnings.append("synchronous_commit is off: a crash of the server loses the last writes; set it to on")
    if is_standby:
        warnings.append("the server is a standby, which accepts no writes; connect to the primary")
    if oldest is not None and oldest > LONG_TRANSACTION:
        warnings.append(
            f"a transaction is open for {oldest} s: dead rows cannot be removed while it lasts; see pg_stat_activity and "
            "pg_prepared_xacts"
        )
    longest = "none" if oldest is None else f"{max(0, oldest)} s"
    if blind is not None:
        longest += f" of this role; GRANT pg_read_all_stats TO {blind} shows those of all roles"
    details = {
        "schema": namespace.schema, "encoding": encoding, "synchronous_commit": commit, "size_bytes": str(size),
        "oldest_transaction": longest,
        "dead_rows": "" if dead is None else str(dead),
        "last_autovacuum": "never" if vacuumed is None else f"{vacuumed} s ago",
    }  # fmt: skip
    durability = f"WAL, fsync={fsync}, synchronous_commit={commit}" + (
        ": acknowledged writes survive power loss" if fsync == "on" and commit != "off" else ""
    )
    return HealthReport("postgresql", version.split()[1], layout or LAYOUT, durability, tuple(warnings), details)


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
