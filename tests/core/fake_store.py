"""A minimal store for tests of the core: `decide` and `apply_branch` over a dict and a counting clock."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from milepost.core.job import Job
from milepost.core.transitions.change import Change, DrainingLease, Record
from milepost.core.transitions.operations import BranchResult, apply_branch, decide
from milepost.stores.protocol import WriteResult

START = 1_750_000_000_000_000


class FakeStore:
    """The facts of a few records. Every change takes one microsecond."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.stops: dict[str, DrainingLease] = {}
        self.values: dict[str, str] = {}
        self.effects: list[BranchResult] = []
        self.now = START
        self._fence = 0
        self._numbers = itertools.count(1)

    def operation_id(self) -> str:
        return f"op{next(self._numbers):06d}"

    def nonce(self) -> str:
        return f"nonce{next(self._numbers):06d}"

    def stopping(self, job_id: str) -> DrainingLease | None:
        return self.stops.get(job_id)

    def key_is_draining(self, key: str) -> bool:
        return any(stop.key == key for stop in self.stops.values())

    def key_owner_status(self, key: str, job_id: str) -> str:
        holders = [i for i, r in self.records.items() if r.get("unique_key") == key and i != job_id]
        return self.records[holders[-1]]["status"] if holders else ""

    def exists(self, job_id: str) -> bool:
        return job_id in self.records

    def other(self, job_id: str) -> dict[str, str] | None:
        return None

    def is_open(self, group: str) -> bool:
        return "completed" not in self.records.get(group.removeprefix("job:"), {"completed": ""})

    def ended_in(self, group: str, statuses: Collection[str]) -> str | None:
        job_id = group.removeprefix("job:")
        ended = job_id in self.records and not self.is_open(group) and self.records[job_id]["status"] in statuses
        return job_id if ended else None

    def value_of(self, key: str) -> str | None:
        return self.values.get(key)

    def next_fence(self) -> int:
        self._fence = max(self._fence + 1, self.now)
        return self._fence

    def apply(self, job_id: str, change: Change) -> WriteResult:
        """Apply a change like a store, without indexes and tombstones."""
        self.now += 1
        record = self.records.get(job_id)
        index, repeated, wait = decide(change, job_id, record, "", self)
        if repeated or index < 0:
            return WriteResult(index, self.job(job_id), repeated=repeated, wait=wait)
        effect = apply_branch(change, index, job_id, record, self)
        self.effects.append(effect)
        for key, value in effect.values.items():
            self.values.pop(key, None) if value is None else self.values.update({key: value})
        if effect.dropped:
            del self.stops[job_id]
        if effect.stopping is not None:
            self.stops[job_id] = effect.stopping
        if effect.record is None:
            self.records.pop(job_id, None)
        else:
            self.records[job_id] = effect.record
        return WriteResult(index, self.job(job_id))

    def job(self, job_id: str) -> Job | None:
        record = self.records.get(job_id)
        return Job.stored(job_id, record) if record is not None else None

    async def do(self, job_id: str, change: Change) -> Job | None:
        """Apply a change that must be accepted, and return the record."""
        outcome = self.apply(job_id, change)
        assert outcome.accepted, f"{change.transition.name} was refused: {self.records.get(job_id)}"
        return outcome.job
