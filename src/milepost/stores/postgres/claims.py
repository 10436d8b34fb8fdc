"""Start the jobs of a claim among the records that it has locked."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from milepost.core.job import Job
from milepost.core.limits import Capacities, queue_name, slot_of, type_name
from milepost.core.serialization import US
from milepost.stores.claim_order import UNKNOWN_RANK, ClaimOrder, Subqueue
from milepost.stores.postgres.batch import Batch
from milepost.stores.postgres.connection import Rows
from milepost.stores.postgres.database import Part, Transaction, for_rows
from milepost.stores.postgres.members import parents_of
from milepost.stores.postgres.subqueues import OpenRings, capacity_parts, first_subqueues, open_rings
from milepost.stores.protocol import Claim, Write
from milepost.stores.rows import Row

CLAIM_ROUNDS = 8
"""How often a claim looks for further records when it may start none of those that it found. It keeps all of them locked, and
the process that cancels the children of a run that has ended waits for them."""
MORE_HEADS = 100
"""The most records that it reads then beyond those that it could start."""


def asked_queues(claim: Claim) -> dict[str, Any]:
    """Return the values of the queues of a claim."""
    queues = list(claim.queues)
    return {"queues": queues, "slots": [type_name(queue) for queue in queues], "own": list(claim.queues.values())}


class Start:
    """The starts of one claim, at most `most`; `jobs` are those that were started."""

    def __init__(self, tx: Transaction, batch: Batch, claim: Claim, most: int) -> None:
        self._tx, self._batch, self._claim, self._most = tx, batch, claim, most
        self._refused: list[str] = []
        self.jobs: list[Job] = []
        self.reopens: int | None = None
        """When a gate or a rate lets more of the jobs start that start in turn."""

    async def by_age(self, name: str, request: Mapping[str, Any], heads: Rows) -> list[Part]:
        """Start records of queues without subqueues, by priority and age. `name` is the statement that reads further ones."""
        capacities: dict[str, int] = {}
        for again in range(CLAIM_ROUNDS):
            await self._know_parents(heads)
            before = len(self._refused)
            # The rows do not count what this claim has started.
            for _, slot, capacity, *_ in heads:
                capacities.setdefault(slot, capacity)
            for rank, slot, _, fence, *stored in sorted(heads, key=lambda row: (row[0], row[6], row[5])):
                if len(self.jobs) < self._most and capacities[slot] > 0:
                    started = self._start(Row._make((*stored[:-2], rank)), fence)
                    if started is not None and (held := started.record.get("slot", "")) in capacities:
                        capacities[held] -= 1
            if len(self.jobs) >= self._most or len(self._refused) == before:
                break
            wanted = self._most - len(self.jobs)
            more = min(wanted << again, MORE_HEADS)
            (heads,) = await self._tx.run((name, {**request, "most": wanted, "more": more, "refused": self._seen()}))
        return []

    async def in_turn(self, heads: Rows, rings: Mapping[str, Sequence[str]]) -> list[Part]:
        """Start these records of queues, and records of the subqueues in the rings of limit keys that are locked, in turn.

        Return the statements that store the turns.
        """
        claim = self._claim
        every = sorted({ring for some in rings.values() for ring in some})
        taken: Part = ("arrivals_take", {"rings": every})
        turned = ("queue_turns", {"queues": list(claim.queues)})
        *_, last, limits, counted = await self._tx.run(taken, turned, *capacity_parts(rings, claim.queues))
        read = open_rings(rings, claim.queues, self._batch.now, limits, counted)
        capacities = read.capacities
        found = {queue: Subqueue(UNKNOWN_RANK, turn, queue) for queue, turn in last}
        turns: dict[str, int] = {}
        for again in range(CLAIM_ROUNDS):
            # Records of the first subqueues may all be refused, or parked and not read at all: look at ever more of them.
            names, is_all = await self._first(read, self._most << 3 * again, turns)
            found |= names
            if names:
                more = [int(min(capacities.of(slot_of(name)), 1 + 2 * self._most // len(names))) for name in names]
                request = {"names": list(names), "capacities": more, "more": 0, "job": claim.job_id}
                heads += (await self._tx.run(("claim_subqueues", {**request, "refused": self._seen()})))[0]
            await self._know_parents(heads)
            before = len(self._refused)
            self._start_in_turn(heads, {**found}, capacities, turns)
            for name, turn in turns.items():
                found[name] = found[name]._replace(turn=turn)
            if len(self.jobs) >= self._most or (len(self._refused) == before and is_all):
                break
            seen = set(self._seen())
            heads = [head for head in heads if US not in head[1] and head[5] not in seen]
        self.reopens = capacities.reopens()
        opens = for_rows("limit_opens", "keys later", sorted(capacities.later.items()))
        return [*for_rows("turns_put", "names turns", sorted(turns.items())), *opens]

    async def _first(self, read: OpenRings, most: int, turns: Mapping[str, int]) -> tuple[dict[str, Subqueue], bool]:
        """Return the first subqueues with capacity of each queue, up to `most`, and whether these are all."""
        if self._claim.job_id is not None:
            (rows,) = await self._tx.run(("subqueue_of", {"job": self._claim.job_id}))
            return {name: Subqueue(UNKNOWN_RANK, 0, name) for (name,) in rows if read.has_capacity(name)}, True
        first, is_all = await first_subqueues(self._tx, read, most)
        counts: Counter[str] = Counter()
        names = {}
        for one in sorted(one._replace(turn=turns.get(one.name, one.turn)) for one in first):
            if counts[queue_name(one.name)] < most and read.has_capacity(one.name):
                names[one.name] = one
                counts[queue_name(one.name)] += 1
        return names, is_all

    def _start_in_turn(
        self, heads: Rows, found: dict[str, Subqueue], capacities: Capacities, turns: dict[str, int]
    ) -> None:
        rows: dict[str, deque[Row]] = {}
        for rank, slot, _, _, *stored in sorted(heads, key=lambda row: (row[0], row[6], row[5])):
            row = Row._make((*stored[:-2], rank))
            # The name of a subqueue is `slot`; the record of a job that was delayed still has its queue.
            rows.setdefault(slot if US in slot else row.queue or "", deque()).append(row)
        fences = iter(sorted(head[3] for head in heads))
        read: dict[str, list[Subqueue]] = {}
        for one in sorted(found[name] for name in rows if name in found):
            read.setdefault(queue_name(one.name), []).append(one)
        turned = {queue for queue, some in read.items() if any(one.name != queue for one in some)}
        order = ClaimOrder(read, capacities, lambda name: rows[name].popleft() if rows[name] else None)
        while len(self.jobs) < self._most and (head := order.next()) is not None:
            name, row = head
            turn = next(fences)
            if self._start(row, turn) is not None:
                if queue_name(name) in turned:
                    turns[name] = turn
                order.started(name, turn)

    def _start(self, row: Row, fence: int) -> Job | None:
        """Start a record with this fence, or note that it is refused."""
        self._batch.know(row.id, row)
        self._batch.take_fences([fence])
        outcome = self._batch.write(Write(row.id, self._claim.starts[len(self.jobs)]))
        if not outcome.accepted or outcome.job is None:
            self._refused.append(row.id)
            return None
        self.jobs.append(outcome.job)
        return outcome.job

    def _seen(self) -> list[str]:
        return [*self._refused, *(job.job_id for job in self.jobs)]

    async def _know_parents(self, heads: Rows) -> None:
        # A parent in an open transaction of its handler is not waited for: its children are refused in this claim.
        parents = parents_of(Row(*head[4:-1]).record() for head in heads if "child_key" in head[13])
        if more := self._batch.others.ask(parents, waits=False):
            self._batch.others.know(*await self._tx.run(*more))
