"""One write transaction: the facts that changes ask about, and what becomes of a performed case. Owns the writing of
records, labels, stopping leases and events; knows no verb. Everything here happens between BEGIN and COMMIT.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from milepost.core import change as changes
from milepost.core.change import Change, Effect, Stopping
from milepost.core.defaults import EVENTS_KEPT
from milepost.core.job import Job
from milepost.core.packing import pack
from milepost.stores.placement import WAITING_FOR_STOP
from milepost.stores.protocol import Outcome, Write
from milepost.stores.sqlite.place import Place
from milepost.stores.sqlite.rows import Row, body, columns, pairs

TOMBSTONE_MICROS = 60_000_000
KEEP = {"feed": 0, "list": 1, "life": 2}


class Reading:
    """Statements by name on one connection, and what every answer needs."""

    def __init__(self, connection: sqlite3.Connection, place: Place) -> None:
        self.place = place
        self._sql = place.sql
        self._execute = connection.execute

    def all(self, name: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """Every row of a statement."""
        return self._execute(self._sql[name], values).fetchall()

    def one(self, name: str, values: Any = ()) -> tuple[Any, ...] | None:
        """The first row of a statement."""
        row: tuple[Any, ...] | None = self._execute(self._sql[name], values).fetchone()
        return row

    def each(self, name: str, values: Any = ()) -> sqlite3.Cursor:
        """The rows of a statement, one by one as they are asked for."""
        return self._execute(self._sql[name], values)

    def pragma(self, text: str) -> Any:
        """The first value that a PRAGMA gives."""
        return self._execute(f"PRAGMA {text}").fetchone()[0]

    def end(self) -> tuple[int, int]:
        """Where the feed ends, and the time of its last event."""
        row = self.one("clock")
        return (row[0], row[1]) if row is not None else (0, 0)

    def number(self, name: str) -> int | None:
        """A number that the namespace keeps."""
        row = self.one("state_get", (name,))
        return int(row[0]) if row is not None else None

    def row(self, job_id: str) -> Row | None:
        """The row of an id."""
        found = self.one("get", (job_id,))
        return Row(*found) if found is not None else None

    def job(self, row: Row) -> Job:
        """The job of a row."""
        waits = row.queue is not None and self.parked(row.id, row.unique_key)
        return row.job(WAITING_FOR_STOP if waits else None)

    def parked(self, job_id: str, key: str | None) -> bool:
        """Whether a stopping lease has an id or its unique key."""
        if self.one("stop_get", (job_id,)) is not None:
            return True
        return bool(key) and self.one("stop_key", (key,)) is not None


class Transaction(Reading):
    """A write transaction that has begun. It is `Facts` for the changes that are made in it.

    `changed`: there is something to commit. `told`: events were written. `stirred`: something may be claimable now, or
    a run is told to stop.
    """

    def __init__(self, connection: sqlite3.Connection, place: Place) -> None:
        super().__init__(connection, place)
        self.changed = self.told = self.stirred = False
        _, at = self.end()
        self.now = place.tick(at)
        self._fence = self._fence_kept = -1

    def run(self, name: str, values: Sequence[Any] = ()) -> int:
        """Perform a statement that writes; the number of rows that it wrote."""
        count = self._execute(self._sql[name], values).rowcount
        if count:
            self.changed = True
        return count

    def keep_number(self, name: str, value: int) -> None:
        """Keep a number for the namespace."""
        self.run("state_put", (name, value))

    def finish(self) -> None:
        """Write what was kept back to the end."""
        if self._fence != self._fence_kept:
            self.keep_number("fence", self._fence)

    def savepoint(self) -> None:
        """Begin a part that may be undone by itself."""
        self._execute("SAVEPOINT part")

    def undo(self) -> None:
        """Undo the part."""
        self._execute("ROLLBACK TO part")
        self.release()

    def release(self) -> None:
        """End the part."""
        self._execute("RELEASE part")

    # --- Facts ---

    def stopping(self, job_id: str) -> Stopping | None:
        row = self.one("stop_get", (job_id,))
        return Stopping(*row) if row is not None else None

    def key_is_stopping(self, key: str) -> bool:
        return self.one("stop_key", (key,)) is not None

    def status_of_holder(self, key: str, job_id: str) -> str:
        row = self.one("holder", (key,))
        return str(row[1]) if row is not None and row[0] != job_id else ""

    def next_fence(self) -> int:
        if self._fence < 0:
            self._fence = self._fence_kept = self.number("fence") or 0
        self._fence = max(self._fence + 1, self.now)
        return self._fence

    # --- changes ---

    def write(self, write: Write) -> Outcome:
        """Apply one change."""
        return self.apply(write, self.row(write.job_id))

    def apply(self, write: Write, row: Row | None) -> Outcome:
        """Apply one change to the record of a row. Whatever the change is wrong with raises before anything is written."""
        job_id, change, answer = write
        record = row.record() if row is not None else None
        gone = self.one("tombstone_get", (job_id, self.now))
        if gone is not None and change.op in gone:
            return Outcome(0 if change.op == gone[1] else -1, None, repeated=True)
        index = changes.repeated(change, record)
        if index >= 0 and row is not None:
            return Outcome(index, self.job(row), repeated=True)
        index = changes.fit(change, job_id, record, self)
        if index < 0:
            return self._refused(change, row)
        effect = changes.perform(change, index, job_id, record, self)
        self.keep(job_id, change.op, effect, row, record)
        if not answer or effect.record is None:
            return Outcome(index, None)
        return Outcome(index, self._answer(job_id, effect.record))

    def _refused(self, change: Change, row: Row | None) -> Outcome:
        if row is not None:
            return Outcome(-1, self.job(row))
        holder = self.one("holder", (change.key,)) if change.key is not None else None
        return Outcome(-1, None, holder=holder[0] if holder is not None else None)

    def _answer(self, job_id: str, record: dict[str, str]) -> Job:
        if record.get("queue") and self.parked(job_id, record.get("unique_key")):
            record = {**record, "waiting_for": WAITING_FOR_STOP}
        return Job.stored(job_id, record)

    def keep(self, job_id: str, op: str, effect: Effect, row: Row | None, old: dict[str, str] | None) -> None:
        """Write down what a performed case asks for. The texts are made, and so checked, before the first is written."""
        new, told = effect.record, pack(effect.text) if effect.event else ""
        derived = columns(new, self.now) if new is not None else ()
        text = body(new) if new is not None else ""
        created = int(new["created"]) if new is not None else 0
        text.encode(), told.encode()  # a lone surrogate raises here, and not in the middle
        self.changed = True
        if effect.dropped:
            self.run("stop_drop", (job_id,))
            self.stirred = True
        if effect.stopping is not None:
            stop = effect.stopping
            self.run("stop_put", (job_id, stop.token, stop.expires, stop.key, stop.slot, stop.worker))
            self.nudge(stop.worker)
        if new is None:
            if row is not None:
                record = old or {}
                self.remove(row, record)
                self.run("tombstone_put", (job_id, record.get("born", ""), op, self.now + TOMBSTONE_MICROS))
        elif row is None or old is None:
            self._insert(job_id, created, new, derived, text)
        elif created != row.created:
            self.remove(row, old)
            self._insert(job_id, created, new, derived, text)
        else:
            self._replace(job_id, row, old, new, derived, text)
        if effect.event:
            keep = KEEP[effect.keep] if new is not None else 0
            self.run("event_put", (job_id, effect.version, effect.event, self.now, keep, told))
            self.told = True
            if keep == 1 and effect.version > EVENTS_KEPT:
                self._bound(job_id)

    def _insert(self, job_id: str, created: int, new: dict[str, str], derived: Sequence[Any], text: str) -> None:
        n = self._execute(self._sql["apply_insert"], (job_id, created, text, *derived)).lastrowid
        for pair in pairs(new):
            self.run("label_put", (pair, created, job_id, n))
        if derived[3] is not None:
            self.stirred = True

    def _replace(
        self, job_id: str, row: Row, old: dict[str, str], new: dict[str, str], derived: Sequence[Any], text: str
    ) -> None:
        before = columns(old, self.now)
        if before == derived:
            self.run("apply_body", (text, row.n))
        else:
            self.run("apply_move", (text, *derived, row.n))
            if derived[3] is not None or before[7] is not None:
                self.stirred = True  # it is in the queue now, or its lease no longer takes a slot
        if new.get("labels") != old.get("labels"):
            had, has = pairs(old), pairs(new)
            for pair in had - has:
                self.run("label_drop", (pair, row.created, job_id))
            for pair in has - had:
                self.run("label_put", (pair, row.created, job_id, row.n))

    def remove(self, row: Row, record: dict[str, str]) -> None:
        """Take a record away, with its labels and its kept events; the feed keeps those for a while."""
        for pair in pairs(record):
            self.run("label_drop", (pair, row.created, row.id))
        self.run("apply_remove", (row.n,))
        self.run("event_drop_all", (row.id, self.number("trimmed") or 0))
        self.run("event_loosen_all", (row.id,))
        if row.lease is not None:
            self.stirred = True

    def _bound(self, job_id: str) -> None:
        """Keep the newest events of the list of a job."""
        left = self.one("event_bound", (job_id, EVENTS_KEPT))
        if left is not None:
            self.run("event_drop_old", (job_id, left[0], self.number("trimmed") or 0))
            self.run("event_loosen_old", (job_id, left[0]))

    def nudge(self, worker: str) -> None:
        """Wake a worker when this is committed."""
        if worker:
            self.run("nudge_put", (worker, self.now))
        self.stirred = True
