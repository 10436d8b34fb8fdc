"""Jobs that wait: for members of groups, or suspended until a time."""

from __future__ import annotations

from milepost.core.transitions.operations import Change, Const
from milepost.testing.conformance.harness import Scenarios, StoreFixture, change_with, worker_job

SHORT = 60_000
"""Microseconds until a suspended job wakes."""
HOUR = 3_600_000_000


def _wait(fixture: StoreFixture, **fields: str) -> Change:
    """Return a change that writes what a suspension writes."""
    sets = tuple(("set", name, Const(value)) for name, value in fields.items())
    return change_with(fixture.operation_id(), *sets)


class Waits(Scenarios):
    """The placement of suspended jobs."""

    async def test_suspended_job_starts_when_it_wakes(self, fixture: StoreFixture) -> None:
        later = await fixture.store.now() + HOUR
        await fixture.create("a", worker_job(not_before="1"))
        await fixture.do("a", _wait(fixture, wake_at=str(later)))
        answer = await fixture.claiming()
        assert (answer.claimed, answer.next_due) == ([], later)
        await fixture.refused("a", fixture.starts(1)[0])
        wakes = await fixture.store.now() + SHORT
        await fixture.do("a", _wait(fixture, wake_at=str(wakes)))
        await fixture.until(wakes)
        (job,) = await fixture.claim() or [await fixture.job("a")]
        assert not job.record.keys() & {"held", "wait_groups", "wake_at"}

    async def test_held_job_is_neither_claimed_nor_due(self, fixture: StoreFixture) -> None:
        for name, at in (("a", "0"), ("b", "1"), ("c", str(1 << 52))):
            await fixture.create(name, worker_job(not_before=at))
            await fixture.do(name, _wait(fixture, held="job:x"))
            assert await fixture.claim(job_id=name) == []
        answer = await fixture.claiming(most=5)
        assert (answer.claimed, answer.next_due) == ([], None)
        await fixture.do("b", change_with(fixture.operation_id(), ("clear", "held")))
        assert [job.job_id for job in await fixture.claim(most=5)] == ["b"]

    async def test_held_job_with_wake_time_starts_then(self, fixture: StoreFixture) -> None:
        later = str(await fixture.store.now() + HOUR)
        await fixture.create("a", worker_job())
        await fixture.do("a", _wait(fixture, held="job:x", wait_groups="job:x", wake_at=later))
        assert (await fixture.claiming()).next_due == int(later)
        await fixture.do("a", _wait(fixture, wake_at="1"))
        assert [job.job_id for job in await fixture.claim()] == ["a"]

    async def test_suspended_job_starts_at_once_when_no_group_holds_it(self, fixture: StoreFixture) -> None:
        later = str(await fixture.store.now() + HOUR)
        await fixture.create("a", worker_job())
        await fixture.do("a", _wait(fixture, wait_groups="job:x", wake_at=later))
        assert [job.job_id for job in await fixture.claim()] == ["a"]
