"""Decide the changes of a batch in memory, from what was read and locked before, and collect what they write.

It is the `StoreFacts` of its changes: each sees the effects of those before it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from milepost.core.defaults import CLOCK_LEAD, EVENTS_KEPT
from milepost.core.job import Job
from milepost.core.ledger import Spent, changed_usage, summed, tree_books
from milepost.core.placement import ORPHANS, memberships
from milepost.core.record_codec import LARGE_BYTES, large_fields, pack, results_prefix, set_apart
from milepost.core.rollups import counted_end
from milepost.core.serialization import US
from milepost.core.transitions import operation_ids
from milepost.core.transitions import operations as changes
from milepost.core.transitions.change import DrainingLease
from milepost.core.transitions.operations import BranchResult
from milepost.core.values import LARGE_MARK
from milepost.stores.index_entries import WAITING_FOR_STOP
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Part, for_rows
from milepost.stores.postgres.members import GroupFacts, OtherRecords, OutsideMembers
from milepost.stores.protocol import Write, WriteResult
from milepost.stores.rows import KEEP, LARGEST, Columns, Row, body, columns, pairs

Fields = dict[str, str]
_ENTRIES = {"labels": "pair created id", "held": "group created id", "members": "group ended id"}
_Counts = Counter[tuple[str, str, str]]
_PLACE = "id queue rank created due subqueue deadline unique_key"


class _Entries(NamedTuple):
    """The rows of records in other tables."""

    labels: set[tuple[str, int, str]]
    held: set[tuple[str, int, str]]
    members: set[tuple[str, str, str]]

    def add(self, job_id: str, created: int, record: Fields) -> set[str]:
        """Add those of a record, and return its labels."""
        if not ("labels" in record or "held" in record):
            return set()  # as most records
        labels = pairs(record)
        self.labels.update([(pair, created, job_id) for pair in labels])
        if record.get("held"):
            self.held.add((record["held"], created, job_id))
        self.members.update([(*member, job_id) for member in memberships(record)])
        return labels


class Batch(GroupFacts):
    """Changes at one time. `fences` are those that its leases may take."""

    def __init__(self, now: int, fences: Sequence[int] = (), members: OutsideMembers | None = None) -> None:
        super().__init__(members or OutsideMembers())
        self.now = now
        self.has_events = self.wakes_workers = False
        self._fences = iter(fences)
        self._rows: dict[str, Row | None] = {}
        self._before: dict[str, Fields] = {}
        self._arrivals: dict[str, int] = {}
        self._arrived = LARGEST // 2
        self._draining_before: dict[str, DrainingLease | None] = {}
        self._gone: dict[str, str] = {}
        self._owners: dict[str, tuple[str, str, int]] = {}
        self._holders: dict[str, set[str]] = defaultdict(set)
        self.others = OtherRecords()
        self._draining_keys, self._is_awaited = set[str](), False
        self.values: dict[str, str] = {}
        self._set_values: dict[str, str | None] = {}
        self._gates, self._unstarted = dict[str, int](), list[tuple[str, int]]()
        self._changed: dict[str, Columns | None] = {}
        """Each changed id with the columns of its record, None if it is removed."""
        self._removed, self._buried, self._overlong, self._wakes = set[str](), set[str](), set[str](), set[str]()
        self._events: list[tuple[str, int, str, int, int, str]] = []
        self._large: dict[tuple[str, str], str | None] = {}
        self._checkpoints: dict[str, tuple[str, int]] = {}
        """Those that were committed with a transaction of the user."""
        self._bodies, self._ends, self._spent = dict[str, str](), list[tuple[int, str, str]](), list[Spent]()

    def know_records(self, found: Rows) -> None:
        """Take the rows of the statement `batch`."""
        for job_id, token, expires, key, slot, worker, groups, gone, is_awaited, value, at, *stored in found:
            self._is_awaited = is_awaited
            lease = DrainingLease(token, expires, key, slot, worker, US.join(groups)) if token is not None else None
            self._draining[job_id] = self._draining_before[job_id] = lease
            self._gone[job_id] = gone or ""
            self.know(job_id, Row(*stored[:-1]) if stored[0] is not None else None)
            if value is not None:
                self._checkpoints[job_id] = (value, at)

    def know(self, job_id: str, row: Row | None) -> None:
        """Take the row of a record."""
        record = row.record() if row is not None else None
        self._rows[job_id], self._records[job_id] = row, record
        if row is not None and record is not None:
            self._before[job_id] = record
            if self.now < (updated := int(record["updated"])) <= self.now + CLOCK_LEAD:
                self.now = updated  # another process changed it before the server's clock was set back a little
            self._arrivals[job_id] = row.n
            self._move(job_id, None, record)
            if record.get("unique_key"):
                self._holders[record["unique_key"]].add(job_id)

    def know_keys(self, found: Rows) -> None:
        """Take the rows of the statement `keys`: the owners of unique keys outside the batch."""
        for key, job_id, status, number, draining in found:
            if job_id is not None:
                self._owners[key] = (job_id, status, number)
            if draining:
                self._draining_keys.add(key)

    # --- facts ---

    def stopping(self, job_id: str) -> DrainingLease | None:
        return self._draining.get(job_id)

    def key_is_draining(self, key: str) -> bool:
        return key in self._draining_keys or any(stop and stop.key == key for stop in self._draining.values())

    def key_owner(self, key: str) -> tuple[str, str] | None:
        """Return the id and the status of the newest record with a unique key."""
        held = [(self._arrivals[i], i, record["status"]) for i in self._holders[key] if (record := self._records[i])]
        if key in self._owners:
            job_id, status, number = self._owners[key]
            held.append((number, job_id, status))
        return max(held)[1:] if held else None

    def key_owner_status(self, key: str, job_id: str) -> str:
        owner = self.key_owner(key)
        return owner[1] if owner is not None and owner[0] != job_id else ""

    def record(self, job_id: str) -> Fields | None:
        """Return the current record of an id."""
        return self._records[job_id]

    def value_of(self, key: str) -> str | None:
        return self.values.get(key)

    def other(self, job_id: str) -> Mapping[str, str] | None:
        return self._records[job_id] if job_id in self._records else self.others.get(job_id)

    def next_fence(self) -> int:
        return next(self._fences)

    def take_fences(self, fences: Sequence[int]) -> None:
        """Replace the fences that leases may take."""
        self._fences = iter(fences)

    # --- changes ---

    def write(self, write: Write) -> WriteResult:
        """Apply one change; the answer has markers for large values that were stored before the batch.

        A value that cannot be stored raises ValueError, and nothing of the change is kept.
        """
        job_id, change, answer = write
        record = self._records[job_id]
        gone = self._gone.get(job_id, "") if change.transition.retention == "callers" or record is None else ""
        decision = changes.decide(change, job_id, record, gone, self)
        index = decision.branch
        if decision.repeated:
            return WriteResult(index, self.job(job_id), repeated=True)
        if index < 0:
            owner = self.key_owner(change.key) if change.key is not None and record is None else None
            return WriteResult(
                -1, self.job(job_id), key_owner_id=owner[0] if owner is not None else None, wait=decision.wait
            )
        if record is not None and job_id in self._checkpoints:
            record = self._with_checkpoint(job_id, record, *self._checkpoints.pop(job_id))
        effect = changes.apply_branch(change, index, job_id, record, self)
        large, outdated = set_apart(change, effect.record, effect.before) if effect.record is not None else ({}, [])
        event = pack(effect.text) if effect.event else ""
        stored, text = self._check(effect, large, event)
        for key, value in effect.values.items():
            self._set_values[key] = value
            self.values.pop(key, None) if value is None else self.values.update({key: value})
        self._gates |= {key: max(until, self._gates.get(key, 0)) for key, until in effect.gates.items()}
        self._unstarted += effect.unstarted
        for name in outdated:
            self._large[job_id, name] = None
        self._large |= {(job_id, name): value for name, value in large.items()}
        if (ended := effect.ended) is not None:
            self._ends += counted_end(ended)
        if (spender := effect.spender) is not None:
            self._spent += changed_usage(spender, effect.before, self.now)
        self._keep(write, index, effect, event, record)
        self._changed[job_id], self._bodies[job_id] = stored, text
        groups = effect.groups_to_check(job_id)
        if not self._is_awaited and "held" not in (effect.record or ()):
            groups = [group for group in groups if group.startswith(ORPHANS)]
        self.groups_to_check.update(groups)
        return WriteResult(index, self.job(job_id) if answer and effect.record is not None else None)

    def _with_checkpoint(self, job_id: str, record: Fields, value: str, at: int) -> Fields:
        """Return a record with a checkpoint, unless it has a later one."""
        if at <= int(record.get("checkpoint_at", 0)):
            return record
        size = len(value.encode())
        if size > LARGE_BYTES:
            self._large[job_id, "checkpoint"], value = value, f"{LARGE_MARK}{size}"
        elif record.get("checkpoint", "")[:1] == LARGE_MARK:
            self._large[job_id, "checkpoint"] = None
        return {**record, "checkpoint": value, "checkpoint_at": str(at)}

    def job(self, job_id: str) -> Job | None:
        """Return the current job of an id, with `waiting_for`."""
        record = self._records[job_id]
        if record is None:
            return None
        if record.get("ready"):
            key = record.get("unique_key")
            if self.stopping(job_id) is not None or (key and self.key_is_draining(key)):
                record = {**record, "waiting_for": WAITING_FOR_STOP}
        if self._large:
            large = {name: self._large.get((job_id, name)) for name in large_fields(record)}
            record = {**record, **{name: value for name, value in large.items() if value is not None}}
        return Job.stored(job_id, record)

    def remove(self, job_id: str) -> None:
        """Remove a record without an event, as a purge does."""
        self._forget(job_id, self._records[job_id])

    def _check(self, effect: BranchResult, large: dict[str, str], event: str) -> tuple[Columns | None, str]:
        """Return the columns and the text of a record. Raises ValueError for an invalid number, a lone surrogate, and NUL."""
        found, text = None, ""
        texts = [event, *large.values(), *filter(None, effect.values.values())]
        if effect.record is not None:
            found, text = columns(effect.record, self.now), body(effect.record)
            int(effect.record["created"])
            texts += (text, found.token or "")
        if "\0" in (joined := "".join(texts)):
            raise ValueError("a value contains NUL, which PostgreSQL cannot store")
        joined.encode()
        return found, text

    def _keep(self, write: Write, index: int, effect: BranchResult, event: str, before: Fields | None) -> None:
        job_id, change, _ = write
        if effect.dropped:
            self._draining[job_id] = None
            self.wakes_workers = True
        if effect.stopping is not None:
            self._draining[job_id] = effect.stopping
            self._wakes.update(filter(None, (effect.stopping.worker,)))
            self.wakes_workers = True
        record = effect.record
        if record is None:
            self._forget(job_id, before)
            if before is not None:
                gone = self._gone.get(job_id, "")
                self._gone[job_id] = operation_ids.tombstone(change.operation_id, index, before, gone, self.now)
                self._buried.add(job_id)
        else:
            self._records[job_id] = record
            self._move(job_id, before, record)
            self._hold(job_id, record, before)
        if effect.event:
            keep = KEEP[effect.keep] if record is not None else 0
            self._events.append((job_id, effect.version, effect.event, self.now, keep, event))
            self.has_events = True
            if keep == 1 and effect.version > EVENTS_KEPT:
                self._overlong.add(job_id)

    def _hold(self, job_id: str, record: Fields, before: Fields | None) -> None:
        if before is None:
            self._arrived += 1
            self._arrivals[job_id] = self._arrived
        old, new = (before or {}).get("unique_key"), record.get("unique_key")
        if old and old != new:
            self._holders[old].discard(job_id)
        if new:
            self._holders[new].add(job_id)

    def _forget(self, job_id: str, before: Fields | None) -> None:
        self._changed[job_id] = None
        self._records[job_id] = None
        self._move(job_id, before, None)
        if before and before.get("unique_key"):
            self._holders[before["unique_key"]].discard(job_id)
        self._removed.add(job_id)
        self._events = [e if e[0] != job_id else (*e[:4], 0, e[5]) for e in self._events]
        for key in [key for key in self._large if key[0] == job_id]:
            del self._large[key]

    # --- what is to be written ---

    def statements(self) -> list[Part]:
        """Return the statements that store the changes, in order; none if nothing changed."""
        return [*self._jobs(), *self._leases(), *self._beside()]

    def _jobs(self) -> Iterable[Part]:
        inserts, updates, first, placed = Rows(), Rows(), Rows(), Rows()
        unplaced: list[str] = []
        had = _Entries(set(), set(), set())
        has = _Entries(set(), set(), set())
        counts = _Counts()
        for job_id in sorted(self._changed):
            row, record, after = self._rows[job_id], self._records[job_id], self._changed[job_id]
            old = self._before[job_id] if row is not None else {}
            if row is not None:
                _count(counts, row, old.get("stalled"), had.add(job_id, row.created, old), -1)
            place = None
            if record is not None and after is not None:
                created = int(record["created"])
                _count(counts, after, after.stalled, has.add(job_id, created, record), 1)
                stored = (
                    job_id, created, after.type, after.status, bool(after.stalled), after.queue, after.unique_key,
                    after.deadline, after.stale, after.ended, self._bodies[job_id],
                )  # fmt: skip
                (inserts if row is None or job_id in self._removed else updates).append(stored)
                place = _place(after, created)
            if place is None and row is not None and row.queue is not None:
                unplaced.append(job_id)
            elif place and (row is None or row.queue is None or place != _place(columns(old, self.now), row.created)):
                (first if row is None else placed).append((job_id, *place))
                self.wakes_workers = True
        if gone := sorted(job_id for job_id in self._removed if self._rows[job_id] is not None):
            kept = [results_prefix(job_id) for job_id in gone]
            yield "jobs_delete", {"ids": gone, "first": kept, "last": [f"{prefix[:-1]}0" for prefix in kept]}
        names = "id created type status stalled queue unique_key deadline stale ended body"
        yield from (*for_rows("jobs_insert", names, inserts), *for_rows("jobs_update", names, updates))
        yield from _some("ready_delete", unplaced)
        yield from (*for_rows("ready_insert", _PLACE, first), *for_rows("ready_put", _PLACE, placed))
        came = {(queue,) for _, queue, _, _, due, *_ in (*first, *placed) if due is None and US in queue}
        yield from for_rows("arrivals_put", "names", sorted(came))
        for name, fields in _ENTRIES.items():
            before, after = getattr(had, name), getattr(has, name)
            yield from for_rows(f"{name}_delete", fields, sorted(before - after))
            yield from for_rows(f"{name}_put", fields, sorted(after - before))
        yield from self._removals({pair for pair, *_ in had.labels - has.labels})
        yield from for_rows("deltas_put", "kind name status n", [(*key, n) for key, n in sorted(counts.items()) if n])

    def _leases(self) -> Iterable[Part]:
        taken, moved = Rows(), Rows()
        ended: list[str] = []
        for job_id in sorted(self._changed):
            row, after = self._rows[job_id], self._changed[job_id]
            before = (row.token, row.lease) if row is not None else (None, None)
            if after is None or after.lease is None:
                if before != (None, None):
                    ended.append(job_id)
                    self.wakes_workers = True
            elif before != (after.token, after.lease):
                lease = (job_id, after.token or "", after.lease, after.slot, after.worker)
                (taken if before == (None, None) else moved).append(lease)
        yield from _some("leases_delete", ended)
        for name, leases in (("leases_insert", taken), ("leases_put", moved)):
            yield from for_rows(name, "id token expires slot worker", leases)
        stops = {i: stop for i, stop in sorted(self._draining.items()) if stop != self._draining_before.get(i)}
        yield from _some("draining_delete", [i for i, stop in stops.items() if stop is None])
        rows = [(i, s.token, s.expires, s.key, s.slot, s.worker, s.groups) for i, s in stops.items() if s is not None]
        yield from for_rows("draining_put", "id token expires key slot worker groups", rows)
        if self._wakes:
            yield "wakes_put", {"workers": sorted(self._wakes), "at": self.now}

    def _beside(self) -> Iterable[Part]:
        outdated = sorted(key for key, value in self._large.items() if value is None)
        yield from for_rows("large_delete", "id name", outdated)
        large = sorted((*key, value) for key, value in self._large.items() if value is not None)
        yield from for_rows("large_put", "id name value", large)
        buried = [(i, self._gone[i], self.now + operation_ids.KEPT_MICROS) for i in sorted(self._buried)]
        yield from for_rows("kv_delete_all", "keys", sorted((key,) for key, v in self._set_values.items() if v is None))
        texts = sorted((key, text) for key, text in self._set_values.items() if text is not None)
        yield from for_rows("kv_set_all", "key value", texts)
        yield from for_rows("gates_close", "keys untils", sorted(self._gates.items()))
        yield from for_rows("tombstones_put", "id kept until", buried)
        yield from for_rows("events_put", "id version kind at keep body", self._events)
        if self._overlong:
            yield "events_bound", {"ids": sorted(self._overlong), "kept": EVENTS_KEPT}
        for name in ("deltas_delete", "tallies_delete") if self._buried else ():  # in the order of the sweep
            yield name, {"kinds": tree_books(sorted(self._buried))}
        ends, spent = Counter(self._ends).items(), summed(self._spent).items() if self._spent else ()
        yield from for_rows("open_ends_add", "minute series metric count", [(*key, n) for key, n in sorted(ends)])
        yield from for_rows("deltas_put", "kind name status n", [(*key, n) for key, n in sorted(spent)])
        yield from for_rows("starts_return", "keys starts", sorted(self._unstarted))


def _count(counts: _Counts, row: Row | Columns, stalled: object, labels: set[str], sign: int) -> None:
    counts["list", row.type, row.status] += sign
    if stalled:
        counts["stalled", "", ""] += sign
    for pair in labels:
        counts["label", pair, ""] += sign


def _place(row: Columns, created: int) -> tuple[str, int, int, int | None, str | None, int | None, str | None] | None:
    """Return where a record is in `ready`, or None if it is in no queue."""
    if row.queue is None:
        return None
    return (row.queue, row.rank, created, row.scheduled, row.subqueue, row.deadline, row.unique_key)


def _some(name: str, ids: list[str]) -> Iterable[Part]:
    if ids:
        yield name, {"ids": ids}
