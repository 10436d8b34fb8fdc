"""Negative controls: the differential test detects stores with one small fault."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from milepost.core.events import Event
from milepost.core.job import Job
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import ApplyResult, Claim, Position, PurgeResult, Select, SweepResult, Write
from milepost.testing import FrozenClock
from milepost.testing.conformance.differential_test import hold_beside_memory


class Right(MemoryStore):
    """A correct store."""


class CursorRepeats(MemoryStore):
    async def select(self, select: Select, limit: int, after: Position | None = None) -> list[Job]:
        again = Position(after.created, after.job_id + "\x7f") if after is not None else None
        return await super().select(select, limit, again)


class CountsEverything(MemoryStore):
    async def count(self, select: Select) -> int | None:
        return await super().count(Select() if select.stalled else select)


class RefusesLateRenewals(MemoryStore):
    async def renew(self, leases: Sequence[tuple[str, str]], micros: int | None) -> list[str]:
        now, answer = await self.now(), []
        for (job_id, token), state in zip(leases, await super().renew(leases, None), strict=True):
            job = await self.get(job_id)
            late = state == "live" and job is not None and int(job.record["lease"]) <= now
            answer += ["lost"] if late else await super().renew([(job_id, token)], micros)
        return answer


class ForgetsOperations(MemoryStore):
    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        applied = await super().apply(writes, claim)
        return applied._replace(outcomes=[o._replace(repeated=False) for o in applied.outcomes])


class NamesNoHolder(MemoryStore):
    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        applied = await super().apply(writes, claim)
        return applied._replace(outcomes=[o._replace(key_owner_id=None) for o in applied.outcomes])


class ClaimsOneTooFew(MemoryStore):
    async def apply(self, writes: Sequence[Write], claim: Claim | None = None) -> ApplyResult:
        if claim is not None and len(claim.starts) > 1:
            claim = Claim(claim.worker, claim.queues, claim.starts[:-1], claim.operation_id, claim.job_id, claim.number)
        return await super().apply(writes, claim)


class LimitsNothing(MemoryStore):
    async def set_limit(self, queue: str, limit: int | None, paused: bool) -> None:
        await super().set_limit(queue, limit, False)


class LosesAnEvent(MemoryStore):
    async def events(self, job_id: str, after: int = 0, limit: int = 1000) -> list[Event]:
        return [e for e in await super().events(job_id, after, limit) if e.kind != "receipt"]


class SeesNoStops(MemoryStore):
    async def sweep(self, *, lease: float, interval: float, limit: int = 200) -> SweepResult:
        found = await super().sweep(lease=lease, interval=interval, limit=limit)
        return found._replace(due=[due for due in found.due if due.kind != "stopping"])


class SeesNoCompany(MemoryStore):
    async def sweep(self, *, lease: float, interval: float, limit: int = 200) -> SweepResult:
        found = await super().sweep(lease=lease, interval=interval, limit=limit)
        return found._replace(due=[due._replace(sibling_leases=1) for due in found.due])


class PurgesTooMuch(MemoryStore):
    async def purge(self, *, before: int, limit: int = 500) -> PurgeResult:
        return await super().purge(before=before, limit=max(2, limit))


class PutsAnyway(MemoryStore):
    async def kv_put(self, key: str, value: str, *, version: int | None = None, ttl: float | None = None) -> int | None:
        return await super().kv_put(key, value, version=version or None, ttl=ttl)


def run(kind: type[MemoryStore]) -> None:
    clock = FrozenClock()
    hold_beside_memory(
        lambda: kind(blocking=True, clock=clock), clock, blocking=True, seeds=range(1, 9), steps=50, shrink=False
    )


def test_correct_store_passes() -> None:
    run(Right)


@pytest.mark.parametrize(
    "kind", [kind for kind in MemoryStore.__subclasses__() if kind.__module__ == __name__ and kind is not Right]
)
def test_faulty_store_is_detected(kind: type[MemoryStore]) -> None:
    with pytest.raises(AssertionError):
        run(kind)
