"""Everything of the SQLite store that does not concern single jobs: sweep, purge, feed, key-value store, health check."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from milepost.core import rollups
from milepost.core.defaults import CLOCK_LEAD, FEED_KEPT, FEED_SECONDS, TURNS_KEPT
from milepost.core.ledger import first_kept
from milepost.core.placement import groups_of
from milepost.core.record_codec import unpack
from milepost.stores.private_files import open_to_others
from milepost.stores.protocol import LAYOUT, DueItem, HealthReport, KeyValue, SweepResult
from milepost.stores.retention import OPEN, Kin, parent_by_run, purgeable
from milepost.stores.rows import LARGEST, Row
from milepost.stores.sqlite.database_file import SHARED_FOLDERS, file_system
from milepost.stores.sqlite.transaction import ReadTransaction, WriteTransaction
from milepost.stores.sweep import Hold, Sweep, hold_of
from milepost.stores.sync_bridge import run_sync

TRIM_BATCH = 2_000
"""Events read per transaction, which holds the lock for about 5 ms."""


DROPPED = ("minutes_dropped", "hours_dropped")


def too_soon(db: ReadTransaction, wanted: Sweep) -> bool:
    """Return whether another sweep ran within half the interval."""
    last = db.number("swept")
    return last is not None and wanted.skips(db.file.read_clock(last), last)


def sweep(tx: WriteTransaction, wanted: Sweep) -> SweepResult:
    """Return what is due, unless another sweep ran within half the interval."""
    last = tx.number("swept")
    now = tx.now = tx.file.read_clock(last or 0)
    if wanted.skips(now, last):
        return SweepResult([], skipped=True)
    tx.keep_number("swept", now)
    due_until = _hold(tx, last, wanted.lease)
    close_minutes(tx)
    due: list[DueItem] = []
    more = False
    for found in _due(tx, wanted, due_until):
        part = list(islice(found, wanted.limit + 1))
        due += part[: wanted.limit]
        more = more or len(part) > wanted.limit
    return SweepResult(due, held=due_until is None or due_until < now, more=more, closing=_closing(tx))


def _closing(tx: WriteTransaction) -> tuple[str, ...]:
    """Return the closed groups that jobs wait for."""
    found = tuple(group for (group,) in tx.all("closing"))
    done = [one for one in found if not tx.is_to_release(one)]
    for group in done:
        tx.run("closing_delete", (group,))
    return tuple(group for group in found if group not in done)


def _hold(tx: WriteTransaction, last: int | None, lease: int) -> int | None:
    """Return the time until which leases are due (None: none are), and store the hold.

    Processes on one file may see different clocks (containers, tests), and each uses its own. Only the process that is
    behind recovers leases: to the others, leases of its live runs look long expired.
    """
    now, file = tx.now, tx.file
    since, held_until = tx.number("held_since"), tx.number("held_until")
    hold = Hold(since, held_until) if since is not None and held_until is not None else None
    own, file.swept = file.swept, now
    is_ahead = own is not None and last is not None and last < own - CLOCK_LEAD and own <= now
    went_back = last is not None and last > now
    if went_back:
        file.turned = (last or 0, now)
        if own is not None and own <= now:
            last, hold = own, None  # this process swept all the time; the other one is ahead
    _turn_back(tx, lease, went_back=went_back)
    if is_ahead:
        return None
    due_until, kept = hold_of(now, last, hold, lease)
    if kept is not None:
        tx.keep_number("held_since", kept.since)
        tx.keep_number("held_until", kept.until)
    elif since is not None:
        tx.run("state_delete", ("held_since",))
        tx.run("state_delete", ("held_until",))
    return due_until


def _turn_back(tx: WriteTransaction, lease: int, *, went_back: bool) -> None:
    """Move leases from a clock that is ahead to the current one, but not below `lease` from now.

    A process that is ahead may still renew once, so its later leases are moved for a while, too.
    """
    ahead, seen = tx.file.turned
    most = max(lease, CLOCK_LEAD)
    if went_back or (ahead > tx.now and 0 <= tx.now - seen < 2 * most):
        bound = tx.now + most if went_back else ahead
        for name in ("lease_turn_back", "draining_turn_back"):
            tx.run(name, {"bound": bound, "least": tx.now + lease, "ahead": ahead - tx.now})


def _due(tx: WriteTransaction, wanted: Sweep, due_until: int | None) -> Iterator[Iterator[DueItem]]:
    """Yield what is due, one iterator per kind."""
    most = wanted.limit + 1
    if due_until is not None:
        yield _leases(tx, due_until, most)
    yield _records(tx, "deadline", {"now": tx.now, "limit": most})
    yield _records(tx, "stale", {"now": tx.now, "limit": most, **wanted.others(tx.now)})
    if due_until is not None:
        stops = tx.all("sweep_draining", (due_until, most))
        yield (DueItem("stopping", i, tx.job(row) if (row := tx.row(i)) is not None else None, t) for i, t in stops)


def _leases(tx: WriteTransaction, until: int, most: int) -> Iterator[DueItem]:
    sibling_leases: dict[str, int] | None = None
    for found in tx.all("sweep_lease", (until, most)):
        job = tx.job(Row(*found))
        if sibling_leases is None:
            sibling_leases = {worker or "": count for worker, count in tx.all("sweep_sibling_leases")}
        yield DueItem("lease", job.job_id, job, sibling_leases=sibling_leases.get(job.worker or "", 1))


def _records(tx: WriteTransaction, kind: str, values: dict[str, int | str | None]) -> Iterator[DueItem]:
    for found in tx.all(f"sweep_{kind}", values):
        job = tx.job(Row(*found))
        yield DueItem(kind, job.job_id, job)


def forget(tx: WriteTransaction) -> None:
    """Delete expired values, old days of usage, and what only repeated requests would need."""
    tx.run("usage_delete_days", (first_kept(tx.now),))
    tx.run("purge_tombstones", (tx.now,))
    tx.run("purge_claims", (tx.now,))
    tx.run("purge_wakes", (tx.now - 60_000_000,))
    tx.run("purge_kv", (tx.now,))
    tx.run("purge_counters")
    tx.run("turns_forget", (TURNS_KEPT,))


def close_minutes(tx: WriteTransaction) -> None:
    """Add the ends of the minutes that are over to the rollups."""
    current = tx.now // rollups.MINUTE
    over = {(minute, name, metric): n for minute, name, metric, n in tx.all("open_ends_get", (0, current))}
    if not over:
        return
    tx.run("open_ends_delete", (current,))
    for hourly in (False, True):
        for number, added in rollups.by_number(over, hourly=hourly).items():
            row = tx.one("rollups_one", (hourly, number))
            tx.run("rollups_put", (hourly, number, rollups.merge(row[0] if row is not None else "", added)))
        sizes: dict[int, int] = dict(tx.all("rollups_sizes", (hourly,)))
        for number in rollups.outdated(sizes, tx.now, hourly=hourly):
            tx.run("rollups_delete", (hourly, number))
            tx.keep_number(DROPPED[hourly], max(number, tx.number(DROPPED[hourly]) or 0))


def read_rollups(db: ReadTransaction, since: int, *, hourly: bool) -> rollups.Rollups:
    """Return the rollups since a time."""
    closed = db.all("rollups_get", (hourly, since // rollups.RESOLUTIONS[hourly].width))
    still_open = db.all("open_ends_get", (since // rollups.MINUTE, LARGEST))
    complete = rollups.complete_since(db.file.read_clock(), db.number(DROPPED[hourly]), hourly=hourly)
    return rollups.Rollups(rollups.assembled(closed, still_open, hourly=hourly), complete)


def overlong(db: ReadTransaction) -> bool:
    """Return whether the feed is well above its bound or has events that are too old."""
    end, _ = db.end()
    begin = db.number("trimmed") or 0
    return end - FEED_KEPT - begin >= TRIM_BATCH or _old(db, begin, db.file.read_clock()) > begin


def _old(db: ReadTransaction, begin: int, now: int) -> int:
    """Return the last of the next too old events, never the newest of the feed; `begin` if there is none."""
    bound = now - int(FEED_SECONDS * 1_000_000)
    found = db.one("feed_old", {"begin": begin, "until": begin + TRIM_BATCH, "bound": bound})
    return max(begin, found[0]) if found is not None and found[0] is not None else begin


def trim(tx: WriteTransaction) -> bool:
    """Delete the next events that left the feed and are in no job's list; return whether there are more."""
    end, _ = tx.end()
    begin = tx.number("trimmed") or 0
    until = max(min(end - FEED_KEPT, begin + TRIM_BATCH), _old(tx, begin, tx.now))
    if until <= begin:
        return False
    tx.run("feed_trim", (begin, until))
    tx.keep_number("trimmed", until)
    return until < end - FEED_KEPT or _old(tx, until, tx.now) > until


def get(db: ReadTransaction, key: str) -> KeyValue | None:
    """Return the value of a key, or None if it does not exist or has expired."""
    found = db.one("kv_get", (key, db.file.read_clock()))
    return KeyValue(*found) if found is not None else None


def put(tx: WriteTransaction, key: str, value: str, version: int | None, ttl: float | None) -> int | None:
    """Set a value if the key has this version."""
    item = get(tx, key)
    if version is not None and version != (item.version if item is not None else 0):
        return None
    return tx.put_value(key, value, None if ttl is None else tx.now + int(ttl * 1_000_000))


def delete(tx: WriteTransaction, key: str) -> bool:
    """Delete a key and return whether it existed."""
    there = get(tx, key) is not None
    tx.run("kv_delete", (key,))
    return there


def scan(db: ReadTransaction, prefix: str, after: str, limit: int) -> list[KeyValue]:
    """Return the values whose keys start with `prefix` and follow `after`."""
    items: list[KeyValue] = []
    rows = db.each("kv_scan", (max(prefix, after), db.file.read_clock()))
    for key, value, version in rows:
        if not key.startswith(prefix) or len(items) >= limit:
            break
        if key > after:
            items.append(KeyValue(key, value, version))
    rows.close()
    return items


MIB = 1024 * 1024
CHECKED_UP_TO = 64 * MIB
"""The integrity of files up to this size (bytes) is checked; above, the check would take seconds."""

LITTLE_DISK = 256 * MIB
LARGE_LOG = 256 * MIB

DURABILITY = {
    "FULL": "WAL, synchronous=FULL: acknowledged writes survive power loss",
    "NORMAL": "WAL, synchronous=NORMAL: acknowledged writes survive the process; power loss may lose the last ones",
}


def check_health(db: ReadTransaction) -> HealthReport:
    """Return the health of the file."""
    path, warnings = db.file.path, []
    size, log = _size(path), _size(path + "-wal")
    kind, free = file_system(path), _free(path)
    mode = str(db.pragma("journal_mode"))
    integrity = str(db.pragma("quick_check(3)")) if size <= CHECKED_UP_TO else "not checked, the file is large"
    if mode != "wal":
        warnings.append(
            f"journal mode is {mode}, not wal: another program changed it, and readers and writers block each other; "
            "run: PRAGMA journal_mode=WAL"
        )
    if size <= CHECKED_UP_TO and integrity != "ok":
        warnings.append(
            f"the file is damaged ({integrity}); restore it, or recover what can be read: sqlite3 {path} .recover"
        )
    if free is not None and free < LITTLE_DISK:
        warnings.append(f"only {free // MIB} MiB of disk space are free; free some")
    if log > LARGE_LOG:
        warnings.append(f"the WAL has grown to {log // MIB} MiB: a process keeps a read transaction open; end it")
    exposed = open_to_others(path, "the jobs and their secrets")
    if exposed is not None:
        warnings.append(exposed)
    if kind in SHARED_FOLDERS:
        warnings.append(f"the file is in a folder shared with the host ({kind}): use it only from one side")
    details = {
        "path": path, "namespace": db.file.namespace, "journal_mode": mode, "integrity": integrity, "file_system": kind,
        "file_bytes": str(size), "wal_bytes": str(log), "free_disk_bytes": "" if free is None else str(free),
    }  # fmt: skip
    layout = db.number("layout") or LAYOUT
    return HealthReport(
        "sqlite", sqlite3.sqlite_version, layout, DURABILITY[db.file.synchronous], tuple(warnings), details
    )


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _free(path: str) -> int | None:
    try:
        return shutil.disk_usage(os.path.dirname(path)).free
    except OSError:
        return None


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
