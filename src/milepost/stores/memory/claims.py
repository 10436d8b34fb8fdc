"""The claims of the memory store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from milepost.core.job import Job
from milepost.core.limits import Capacities, queue_name
from milepost.core.transitions import operation_ids
from milepost.stores.claim_order import UNKNOWN_RANK, ClaimOrder, Subqueue
from milepost.stores.memory.state import MemoryState
from milepost.stores.protocol import Claim, WriteResult


class _Head(NamedTuple):
    rank: int
    created: int
    id: str


class MemoryClaims:
    """Starts the jobs of claims."""

    _memory: MemoryState
    _held: Callable[[str], int]
    _write: Callable[..., WriteResult]

    def _claim(self, claim: Claim) -> tuple[list[Job], int | None]:
        """Return the claimed jobs, and when a gate or a rate lets more of them start."""
        memory, reopens = self._memory, None
        number, operation_id, ids, until = memory.claims.get(claim.worker, (0, "", [], 0))
        if claim.number < number:
            return [], None
        if operation_id != claim.operation_id or until <= memory.now:
            memory.promote()
            ids, reopens = self._start(claim)
            until = memory.now + operation_ids.KEPT_MICROS
            memory.claims[claim.worker] = (claim.number, claim.operation_id, ids, until)
        return [job for job in map(memory.job, ids) if job is not None], reopens

    def _start(self, claim: Claim) -> tuple[list[str], int | None]:
        """Start the first jobs of the open queues, skipping those that are refused, and return their ids."""
        memory, starts, started = self._memory, list(claim.starts), list[str]()
        capacities = Capacities(memory.limits, claim.queues, self._held, memory.now)
        queues = [queue for queue in claim.queues if not capacities.is_paused(queue)]
        turned = set(filter(memory.subqueues.has_turns, queues))
        heads: dict[str, Iterator[_Head]] = {}

        def next_head(name: str) -> _Head | None:
            return next(heads.setdefault(name, self._heads(name, claim.job_id)), None)

        order = ClaimOrder(self._found(claim.job_id, queues, capacities), capacities, next_head)
        while starts and (head := order.next()) is not None:
            name, job = head
            if self._write(job.id, starts[0], False).accepted:
                del starts[0]
                started.append(job.id)
                order.started(name, memory.subqueues.take_turn(name) if queue_name(name) in turned else 0)
        for key, opens in capacities.opens.items():
            memory.limits[key] = memory.limits[key]._replace(opens=opens)
        return started, capacities.reopens()

    def _found(
        self, job_id: str | None, queues: Sequence[str], capacities: Capacities
    ) -> Mapping[str, Iterable[Subqueue]]:
        """Return the subqueues of queues in which a claim looks for jobs, or for the job of an id."""
        memory = self._memory
        if job_id is None:
            first, indexes = memory.subqueues.first, memory.indexes
            return {queue: first(queue, capacities, own=("claimable", queue) in indexes) for queue in queues}
        names = [index[1] for index, _ in memory.entries.get(job_id, ()) if index[0] == "claimable"]
        return {queue_name(name): [Subqueue(UNKNOWN_RANK, 0, name)] for name in names if queue_name(name) in queues}

    def _heads(self, name: str, job_id: str | None) -> Iterator[_Head]:
        """Yield the claimable jobs of a subqueue, or that of an id."""
        last: tuple[int | str, ...] = ()
        while entries := self._memory.indexes.get(("claimable", name)):
            at = bisect_right(entries, last)
            if at == len(entries):
                return
            rank, created, found = last = entries[at]
            if job_id is None or job_id == found:
                yield _Head(int(rank), int(created), str(found))
