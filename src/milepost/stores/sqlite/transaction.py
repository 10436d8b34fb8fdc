"""Read and write transactions: run named statements and apply changes."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from milepost.core.defaults import EVENTS_KEPT
from milepost.core.job import Job
from milepost.core.ledger import DAY_BOOK, MAX_ROWS, TREE, Spent, changed_usage, others, summed
from milepost.core.placement import AFTER, BATCH, ORPHANS, groups_of, members_pair, memberships
from milepost.core.record_codec import large_fields, pack, results_prefix, set_apart
from milepost.core.rollups import counted_end
from milepost.core.transitions import operation_ids
from milepost.core.transitions import operations as changes
from milepost.core.transitions.change import Change, DrainingLease
from milepost.core.transitions.operations import BranchResult
from milepost.core.values import LARGE_MARK
from milepost.stores.index_entries import WAITING_FOR_STOP
from milepost.stores.protocol import Write, WriteResult
from milepost.stores.rows import KEEP, Row, body, columns, pairs
from milepost.stores.sqlite.database_file import DatabaseFile
from milepost.stores.sqlite.limits import close_gate, place, return_start


class ReadTransaction:
    """Named statements on one connection, and the reads that every method needs."""

    def __init__(self, connection: sqlite3.Connection, file: DatabaseFile) -> None:
        self.file = file
        self._sql = file.sql
        self._execute = connection.execute

    def all(self, name: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a statement."""
        return self._execute(self._sql[name], values).fetchall()

    def one(self, name: str, values: Any = ()) -> tuple[Any, ...] | None:
        """Return the first row of a statement, or None."""
        row: tuple[Any, ...] | None = self._execute(self._sql[name], values).fetchone()
        return row

    def each(self, name: str, values: Any = ()) -> sqlite3.Cursor:
        """Return a cursor over the rows of a statement."""
        return self._execute(self._sql[name], values)

    def pragma(self, text: str) -> Any:
        """Return the first value of a PRAGMA."""
        return self._execute(f"PRAGMA {text}").fetchone()[0]

    def end(self) -> tuple[int, int]:
        """Return the number and the time of the last event in the feed."""
        row = self.one("newest_event")
        return (row[0], row[1]) if row is not None else (0, 0)

    def number(self, name: str) -> int | None:
        """Return a stored number of the namespace, or None."""
        row = self.one("state_get", (name,))
        return int(row[0]) if row is not None else None

    def row(self, job_id: str) -> Row | None:
        """Return the row of an id, or None."""
        found = self.one("record_get", (job_id,))
        return Row(*found) if found is not None else None

    def job(self, row: Row) -> Job:
        """Return the job of a row."""
        waits = row.queue is not None and self.parked(row.id, row.unique_key)
        return row.job(WAITING_FOR_STOP if waits else None)

    def whole(self, row: Row) -> Job:
        """Return the job of a row with its large values."""
        return self.with_large(self.job(row)) if f"={LARGE_MARK}" in row.body else self.job(row)

    def with_large(self, job: Job) -> Job:
        """Return a job with its large values in place of their markers."""
        return Job.stored(job.job_id, {**job.record, **dict(self.all("large_get", (job.job_id,)))})

    def parked(self, job_id: str, key: str | None) -> bool:
        """Return whether a draining lease has this id or unique key."""
        if self.one("draining_get", (job_id,)) is not None:
            return True
        return bool(key) and self.one("draining_key", (key,)) is not None


class WriteTransaction(ReadTransaction):
    """A started write transaction; it is the `StoreFacts` of the changes in it.

    `changed`: there is something to commit. `has_events`: events were written. `wakes_workers`: a job may be claimable
    now, or a run is to stop.
    """

    def __init__(self, connection: sqlite3.Connection, file: DatabaseFile) -> None:
        super().__init__(connection, file)
        self.changed = self.has_events = self.wakes_workers = False
        _, at = self.end()
        self.now = file.read_clock(at)
        self._fence = self._fence_kept = -1
        self._ends: list[tuple[int, str, str]] = []
        self._spent: list[Spent] = []
        self._ends_kept = self._spent_kept = 0

    def run(self, name: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> int:
        """Run a writing statement and return the number of rows written."""
        count = self._execute(self._sql[name], values).rowcount
        if count:
            self.changed = True
        return count

    def keep_number(self, name: str, value: int) -> None:
        """Store a number of the namespace."""
        self.run("state_put", (name, value))

    def finish(self) -> None:
        """Write the values that are written once per transaction."""
        if self._fence != self._fence_kept:
            self.keep_number("fence", self._fence)
        for key, count in Counter(self._ends).items():
            self.run("open_ends_add", (*key, count))
        for (book, series, name), amount in summed(self._spent).items() if self._spent else ():
            if not book.startswith(TREE) or self.one("record_end", (book.removeprefix(TREE),)) is not None:
                row = {"book": book, "series": series, "name": name}
                if book.startswith(DAY_BOOK) and self.one("usage_beyond", {**row, "rows": MAX_ROWS - 1}) == (1,):
                    row["series"] = others(series)
                self.run("usage_add", {**row, "amount": amount})

    def savepoint(self) -> None:
        """Begin a part that can be rolled back separately."""
        self._execute("SAVEPOINT part")
        self._ends_kept, self._spent_kept = len(self._ends), len(self._spent)

    def undo(self) -> None:
        """Roll the part back."""
        self._execute("ROLLBACK TO part")
        del self._ends[self._ends_kept :], self._spent[self._spent_kept :]
        self.release()

    def release(self) -> None:
        """End the part."""
        self._execute("RELEASE part")

    # --- Facts ---

    def stopping(self, job_id: str) -> DrainingLease | None:
        row = self.one("draining_get", (job_id,))
        return DrainingLease(*row) if row is not None else None

    def key_is_draining(self, key: str) -> bool:
        return self.one("draining_key", (key,)) is not None

    def key_owner_status(self, key: str, job_id: str) -> str:
        row = self.one("key_owner", (key,))
        return str(row[1]) if row is not None and row[0] != job_id else ""

    def knows(self, group: str) -> bool:
        kind, _, name = group.partition(":")
        known = ("label_check", members_pair(group)) if kind == "group" else ("record_end", name)
        return self.one(known[0], (known[1],)) is not None

    def other(self, job_id: str) -> Mapping[str, str] | None:
        row = self.row(job_id)
        return row.record() if row is not None else None

    ended = other

    def is_open(self, group: str) -> bool:
        kind, _, job_id = group.partition(":")
        if kind != "job":
            return self.one("member", (group, "")) is not None or self.one("draining_group", (group,)) is not None
        row = self.one("record_end", (job_id,))
        return (row is not None and row[1] is None) or self.stopping(job_id) is not None

    def ended_in(self, group: str, statuses: Collection[str]) -> str | None:
        kind, _, job_id = group.partition(":")
        row = self.one("record_end", (job_id,)) if kind == "job" else None
        if row is not None and row[0] in statuses and row[1] is not None:
            return job_id
        for status in statuses:
            if (found := self.one("member", (group, status))) is not None:
                return str(found[0])
        return next((str(i) for status, i in self.all("removed_members", (group,)) if status in statuses), None)

    def value_of(self, key: str) -> str | None:
        found = self.one("kv_get", (key, self.now))
        return str(found[1]) if found is not None else None

    def next_fence(self) -> int:
        if self._fence < 0:
            self._fence = self._fence_kept = self.number("fence") or 0
        self._fence = max(self._fence + 1, self.now)
        return self._fence

    # --- changes ---

    def write(self, write: Write) -> WriteResult:
        """Apply one change and return its result."""
        row = self.row(write.job_id)
        outcome = self.apply(write, row)
        job = outcome.job
        return outcome if job is None or not large_fields(job.record) else outcome._replace(job=self.with_large(job))

    def apply(self, write: Write, row: Row | None) -> WriteResult:
        """Apply one change to the record of a row; the answer has markers for large values.

        A value that cannot be stored raises ValueError before anything is written.
        """
        job_id, change, answer = write
        record = row.record() if row is not None else None
        gone = self.gone(job_id) if change.transition.retention == "callers" or row is None else ""
        decision = changes.decide(change, job_id, record, gone, self)
        index = decision.branch
        if decision.repeated:
            return WriteResult(index, self.job(row) if row is not None else None, repeated=True)
        if index < 0:
            return self._refused(change, row)._replace(wait=decision.wait)
        effect = changes.apply_branch(change, index, job_id, record, self)
        large, outdated = set_apart(change, effect.record, effect.before) if effect.record is not None else ({}, [])
        self.keep(job_id, effect, row, record)
        closed = self._closed(effect.groups_to_check(job_id))
        if (ended := effect.ended) is not None:
            self._ends += counted_end(ended)
        if (spender := effect.spender) is not None:
            self._spent += changed_usage(spender, effect.before, self.now)
        for name in outdated:
            self.run("large_delete", (job_id, name))
        for name, value in large.items():
            self.run("large_put", (job_id, name, value))
        if effect.record is None and record is not None:
            kept = operation_ids.tombstone(change.operation_id, index, record, self.gone(job_id), self.now)
            self.run("tombstone_put", (job_id, kept, self.now + operation_ids.KEPT_MICROS))
        job = self._answer(job_id, effect.record) if answer and effect.record is not None else None
        return WriteResult(index, job, closed=closed)

    def _closed(self, groups: Sequence[str]) -> tuple[str, ...]:
        """Return the groups that are closed while jobs wait for them, and let the sweep look at these."""
        closed = tuple(filter(self.is_to_release, groups))
        for group in closed:
            self.run("closing_put", (group,))
        return closed

    def is_to_release(self, group: str) -> bool:
        """Return whether a group is closed while jobs wait for it, or whether orphans are open."""
        if group.startswith(ORPHANS):
            return self.one("member", ("children:" + group.removeprefix(ORPHANS), "")) is not None
        return self.one("held_by", (group, 1)) is not None and not self.is_open(group)

    def gone(self, job_id: str) -> str:
        """Return the tombstone of removed records of an id, or empty."""
        found = self.one("tombstone_get", (job_id, self.now))
        return str(found[0]) if found is not None else ""

    def _refused(self, change: Change, row: Row | None) -> WriteResult:
        if row is not None:
            return WriteResult(-1, self.job(row))
        owner = self.one("key_owner", (change.key,)) if change.key is not None else None
        return WriteResult(-1, None, key_owner_id=owner[0] if owner is not None else None)

    def _answer(self, job_id: str, record: dict[str, str]) -> Job:
        if record.get("ready") and self.parked(job_id, record.get("unique_key")):
            record = {**record, "waiting_for": WAITING_FOR_STOP}
        return Job.stored(job_id, record)

    def keep(self, job_id: str, effect: BranchResult, row: Row | None, old: dict[str, str] | None) -> None:
        """Store the result of an applied branch; all values are encoded, and so checked, before the first write."""
        new, event_text = effect.record, pack(effect.text) if effect.event else ""
        derived = columns(new, self.now) if new is not None else ()
        text = body(new) if new is not None else ""
        created = int(new["created"]) if new is not None else 0
        # A lone surrogate raises here, before the first write.
        "".join((text, event_text, *filter(None, effect.values.values()))).encode()
        self.changed = True
        for key, value in effect.values.items():
            if value is None:
                self.run("kv_delete", (key,))
            else:
                self.put_value(key, value, None)
        for key, until in effect.gates.items():
            close_gate(self, key, until)
        for key, started in effect.unstarted:
            return_start(self, key, started)
        if effect.dropped is not None:
            self.run("draining_delete", (job_id,))
            self.wakes_workers = True
        if effect.stopping is not None:
            stop = effect.stopping
            self.run("draining_put", (job_id, stop.token, stop.expires, stop.key, stop.slot, stop.worker, stop.groups))
            self.wake(stop.worker)
        if new is None:
            if row is not None:
                self.remove(row, old or {})
                self.remove_values(job_id)
        elif row is None or old is None:
            self._insert(job_id, created, new, derived, text)
        elif created != row.created:
            self.remove(row, old)
            self._insert(job_id, created, new, derived, text)
        else:
            self._replace(job_id, row, old, new, derived, text)
        if effect.event:
            keep = KEEP[effect.keep] if new is not None else 0
            self.run("event_put", (job_id, effect.version, effect.event, self.now, keep, event_text))
            self.has_events = True
            if keep == 1 and effect.version > EVENTS_KEPT:
                self._bound(job_id)

    def _insert(self, job_id: str, created: int, new: dict[str, str], derived: Sequence[Any], text: str) -> None:
        n = self._execute(self._sql["record_insert"], (job_id, created, text, *derived)).lastrowid
        for pair in pairs(new):
            self.run("label_put", (pair, created, job_id, n))
        if new.get("held"):
            self.run("held_put", (new["held"], created, job_id))
        for member in memberships(new):
            self.run("member_put", (*member, job_id))
        place(self, derived[3])
        if derived[3] is not None:
            self.wakes_workers = True

    def _replace(
        self, job_id: str, row: Row, old: dict[str, str], new: dict[str, str], derived: Sequence[Any], text: str
    ) -> None:
        before = columns(old, self.now)
        if before == derived:
            self.run("record_update_body", (text, row.n))
        else:
            self.run("record_update", (text, *derived, row.n))
            place(self, row.queue, derived[3])
            if derived[3] is not None or before.lease is not None:
                self.wakes_workers = True  # it is in a queue now, or its lease freed a slot
        if new.get("held") != old.get("held"):
            self.run("held_delete", (old.get("held"), row.created, job_id))
            if new.get("held"):
                self.run("held_put", (new["held"], row.created, job_id))
        if ":" in new.get("labels", "") and any((name in new) != (name in old) for name in ("completed", "closed")):
            self._move_member(job_id, memberships(old), memberships(new))
        if new.get("labels") != old.get("labels"):
            had, has = pairs(old), pairs(new)
            for pair in had - has:
                self.run("label_delete", (pair, row.created, job_id))
            for pair in has - had:
                self.run("label_put", (pair, row.created, job_id, row.n))

    def remove(self, row: Row, record: dict[str, str]) -> None:
        """Remove a record with its labels and kept events; the feed keeps those events for a while."""
        for pair in pairs(record):
            self.run("label_delete", (pair, row.created, row.id))
            if pair.startswith(AFTER):
                self.run("removed_member_delete", {"group": pair.removeprefix(AFTER)})
        self._move_member(row.id, memberships(record), set())
        if record.get("held"):
            self.run("held_delete", (record["held"], row.created, row.id))
        self.run("record_delete", (row.n,))
        place(self, row.queue)
        for group in groups_of(row.id, record):
            self.run("removed_member_put", {"group": group, "status": row.status, "id": row.id})
        if record.get("type") == BATCH:
            self.run("removed_member_delete", {"group": f"group:{row.id}"})
        self.run("event_delete_all", (row.id, self.number("trimmed") or 0))
        self.run("event_unlist_all", (row.id,))
        if row.lease is not None:
            self.wakes_workers = True

    def _move_member(self, job_id: str, had: set[tuple[str, str]], has: set[tuple[str, str]]) -> None:
        for member in had - has:
            self.run("member_delete", (*member, job_id))
        for member in has - had:
            self.run("member_put", (*member, job_id))

    def remove_values(self, job_id: str) -> None:
        """Remove what is stored beside a removed record: its large values, its kept results, what descendants spent."""
        self.run("large_delete_all", (job_id,))
        self.run("usage_delete", (TREE + job_id,))
        first = results_prefix(job_id)
        self.run("kv_delete_between", (first, f"{first[:-1]}0"))  # 0 follows the slash

    def put_value(self, key: str, value: str, until: int | None) -> int:
        """Set a value of the key-value store and return its version, which is unique across all keys."""
        version = (self.number("kv_version") or 0) + 1
        self.keep_number("kv_version", version)
        self.run("kv_put", (key, value, version, until))
        return version

    def _bound(self, job_id: str) -> None:
        """Remove events beyond the bound of a job's event list."""
        left = self.one("event_list_bound", (job_id, EVENTS_KEPT))
        if left is not None:
            self.run("event_delete_old", (job_id, left[0], self.number("trimmed") or 0))
            self.run("event_unlist_old", (job_id, left[0]))

    def wake(self, worker: str) -> None:
        """Wake a worker once this transaction is committed."""
        if worker:
            self.run("wake_put", (worker, self.now))
        self.wakes_workers = True
