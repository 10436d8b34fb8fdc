"""Outages and clock changes: which leases expire, what is due, and when sweeps continue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from milepost.core import transitions as plans
from milepost.core.defaults import CLOCK_LEAD
from milepost.stores.protocol import Claim, SweepResult
from milepost.stores.retention import purge_older
from milepost.testing.conformance.harness import (
    Scenarios,
    StoreFixture,
    needs_moving_clock,
    token_of,
    track_job,
    worker_job,
)

LEASE = 30.0
MICROS = 30_000_000
TWO_HOURS = 7200.0
FIFTY_MINUTES = 3000.0


async def sweep(fixture: StoreFixture) -> SweepResult:
    """Sweep like a process with a lease of 30 s."""
    return await fixture.store.sweep(lease=LEASE, interval=5.0)


def lost(found: SweepResult) -> set[str]:
    """Return the ids of the jobs whose lease is due."""
    return {due.job_id for due in found.due if due.kind == "lease"}


async def running(fixture: StoreFixture, *names: str, lease: int = MICROS) -> list[tuple[str, str]]:
    """Start runs under a lease and return their ids and tokens."""
    return [(name, token_of(await fixture.track(name, track_job(), lease=lease))) for name in names]


async def swept_for(fixture: StoreFixture, seconds: float) -> list[SweepResult]:
    """Sweep every 5 s for some time and return the results."""
    clock, passes = needs_moving_clock(fixture), []
    for _ in range(round(seconds / 5)):
        clock.advance(5)
        passes.append(await sweep(fixture))
    return passes


@contextmanager
def ahead(fixture: StoreFixture, seconds: float) -> Iterator[None]:
    """Set the clock ahead within the block."""
    clock = needs_moving_clock(fixture)
    clock.advance(seconds)
    yield
    clock.advance(-seconds)


async def outage_until_end_of_hold(fixture: StoreFixture, living: tuple[str, str]) -> None:
    """Have an outage of 20 s that begins soon after a hold of 30 s, and expect that only the job `dead` is lost."""
    clock = needs_moving_clock(fixture)
    await fixture.store.renew([living], MICROS)
    await swept_for(fixture, 5)
    clock.advance(20)
    await sweep(fixture)
    clock.advance(10)
    assert lost(await sweep(fixture)) == set(), "living owners renew first"
    assert await fixture.store.renew([living], MICROS) == ["live"]
    *before, last = await swept_for(fixture, 20)
    assert ([lost(found) for found in before], lost(last), last.held) == ([set()] * 3, {"dead"}, False)


class Outages(Scenarios):
    """No sweep runs for a while, because the store is unavailable or the machine sleeps."""

    async def test_second_outage_within_hold_recovers_no_live_run(self, fixture: StoreFixture) -> None:
        """After two outages, the second one cost every live run, although its owner had renewed in between."""
        clock = needs_moving_clock(fixture)
        (living, dead) = await running(fixture, "living", "dead")
        await sweep(fixture)
        clock.advance(60)
        assert (await sweep(fixture)).held
        await fixture.store.renew([living], MICROS)
        clock.advance(5)
        await sweep(fixture)
        clock.advance(60)
        found = await sweep(fixture)
        assert (found.held, lost(found)) == (True, {"dead"}), (
            "only the lease that was not renewed since the first outage"
        )
        assert await fixture.store.renew([living, dead], MICROS) == ["live", "live"], "nothing was changed yet"

    async def test_renewal_between_outage_and_sweep_counts(self, fixture: StoreFixture) -> None:
        """A run that renewed before the first sweep after an outage was lost in a second one."""
        clock = needs_moving_clock(fixture)
        (living, _) = await running(fixture, "living", "dead")
        await sweep(fixture)
        clock.advance(60)
        await fixture.store.renew([living], MICROS)
        clock.advance(5)
        assert (await sweep(fixture)).held
        clock.advance(60)
        found = await sweep(fixture)
        assert (found.held, lost(found)) == (True, {"dead"})

    async def test_repeated_outages_recover_no_live_run(self, fixture: StoreFixture) -> None:
        """Each outage gives the owners of live runs another lease duration."""
        clock = needs_moving_clock(fixture)
        (living,) = await running(fixture, "living")
        await sweep(fixture)
        for _ in range(4):
            clock.advance(60)
            assert lost(await sweep(fixture)) == set()
            clock.advance(1)
            assert await fixture.store.renew([living], MICROS) == ["live"]
        clock.advance(60)
        assert lost(await sweep(fixture)) == set()
        assert lost((await swept_for(fixture, 35))[-1]) == {"living"}, "it is not renewed any more"

    async def test_rare_sweep_recovers_unrenewed_lease(self, fixture: StoreFixture) -> None:
        """With one sweep per minute, the second sweep recovers a dead run."""
        clock = needs_moving_clock(fixture)
        await running(fixture, "dead")
        await sweep(fixture)
        found = []
        for _ in range(2):
            clock.advance(60)
            found.append(lost(await sweep(fixture)))
        assert found == [set(), {"dead"}]

    async def test_outage_that_ends_with_hold_recovers_no_live_run(self, fixture: StoreFixture) -> None:
        """After a second outage that ended just before the hold of the first one, live runs were lost at the end of that."""
        clock = needs_moving_clock(fixture)
        (living, _) = await running(fixture, "living", "dead")
        await sweep(fixture)
        clock.advance(60)
        assert (await sweep(fixture)).held
        await outage_until_end_of_hold(fixture, living)

    async def test_sweep_that_is_always_late_recovers_unrenewed_lease(self, fixture: StoreFixture) -> None:
        """Each late sweep prolongs the hold, but for a lease at most."""
        clock = needs_moving_clock(fixture)
        (living, _) = await running(fixture, "living", "dead")
        await sweep(fixture)
        found = []
        for _ in range(3):
            clock.advance(20)
            await fixture.store.renew([living], MICROS)
            found.append(lost(await sweep(fixture)))
        assert found == [set(), set(), {"dead"}]


class SetClocks(Scenarios):
    """The system clock of a store changes."""

    async def test_clock_follows_large_step_back(self, fixture: StoreFixture) -> None:
        """After a clock had been two hours ahead for a moment, nothing was due for two hours."""
        needs_moving_clock(fixture)
        before = await fixture.store.now()
        with ahead(fixture, TWO_HOURS):
            await fixture.create("early", worker_job())
        assert before <= await fixture.store.now() < before + CLOCK_LEAD

    async def test_clock_stands_still_after_small_step_back(self, fixture: StoreFixture) -> None:
        """A small step back of the clock does not move times back."""
        needs_moving_clock(fixture)
        with ahead(fixture, 20.0):
            before = await fixture.store.now()
        assert await fixture.store.now() >= before

    async def test_tokens_increase_after_step_back(self, fixture: StoreFixture) -> None:
        """A storage that refuses lower fencing tokens accepts the later run."""
        needs_moving_clock(fixture)
        with ahead(fixture, TWO_HOURS):
            ((_, first),) = await running(fixture, "first")
        ((_, second),) = await running(fixture, "second")
        assert int(second.partition(":")[0]) > int(first.partition(":")[0])

    async def test_sweep_continues_after_step_back(self, fixture: StoreFixture) -> None:
        """A sweep before a clock was set back prevented all sweeps until that time came again."""
        needs_moving_clock(fixture)
        with ahead(fixture, TWO_HOURS):
            await sweep(fixture)
        await running(fixture, "dead")
        found = await sweep(fixture)
        assert (found.skipped, found.held) == (False, True), "living owners renew first"
        passes = await swept_for(fixture, 40)
        assert lost(passes[0]) == set()
        assert lost(passes[-1]) == {"dead"}
        assert not passes[-1].held

    async def test_outage_after_step_back_recovers_no_live_run(self, fixture: StoreFixture) -> None:
        """An outage within a lease after a clock was set back cost live runs."""
        needs_moving_clock(fixture)
        with ahead(fixture, TWO_HOURS):
            await sweep(fixture)
        (living, _) = await running(fixture, "living", "dead")
        assert (await sweep(fixture)).held
        await outage_until_end_of_hold(fixture, living)

    async def test_leases_from_fast_clock_expire(self, fixture: StoreFixture) -> None:
        """A run that died while the clock was ahead kept its job, key and slot for as long as the clock had been ahead."""
        needs_moving_clock(fixture)
        with ahead(fixture, TWO_HOURS):
            living, *_ = await running(fixture, "living", "dead")
            await fixture.create("stopping", worker_job())
            await fixture.start("stopping", lease=MICROS)
            await fixture.do("stopping", plans.plan_cancel(fixture.operation_id()))
            await running(fixture, "long ago", lease=0)
            await sweep(fixture)
        await sweep(fixture)
        now = await fixture.store.now()
        assert int((await fixture.job("dead")).record["lease"]) <= now + MICROS
        kinds: dict[str, str] = {}
        for _ in range(8):
            await fixture.store.renew([living], MICROS)
            for due in (await swept_for(fixture, 5))[0].due:
                kinds[due.job_id] = due.kind
        assert kinds == {"dead": "lease", "long ago": "lease", "stopping": "stopping"}

    async def test_longer_leases_keep_length_after_step_back(self, fixture: StoreFixture) -> None:
        """Leases move back with the clock; a lease longer than that of the sweeping process stays longer."""
        needs_moving_clock(fixture)
        with ahead(fixture, TWO_HOURS):
            await running(fixture, "long", lease=10 * MICROS)
            await sweep(fixture)
        await sweep(fixture)
        left = int((await fixture.job("long")).record["lease"]) - await fixture.store.now()
        assert 9 * MICROS < left <= 10 * MICROS

    async def test_live_runs_survive_clock_change(self, fixture: StoreFixture) -> None:
        """A run whose owner renews survives clock jumps in both directions."""
        clock = needs_moving_clock(fixture)
        (living,) = await running(fixture, "living")
        await sweep(fixture)
        for jump in (TWO_HOURS, -TWO_HOURS, 86_400.0, -86_400.0, 3.0, -3.0):
            clock.advance(jump)
            for _ in range(10):
                assert lost(await sweep(fixture)) == set()
                assert await fixture.store.renew([living], MICROS) == ["live"]
                clock.advance(5)

    async def test_delays_count_from_current_clock(self, fixture: StoreFixture) -> None:
        """After a clock was set back, a retry was two hours late, and a scheduled job started at once."""
        clock = needs_moving_clock(fixture)
        with ahead(fixture, TWO_HOURS):
            await fixture.create("old", worker_job())
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        fail = plans.plan_fail(fixture.operation_id(), token, error="no", failure="{}", report={}, delay=1_000_000)
        await fixture.do("a", fail)
        due = await fixture.store.now() + 3_000_000
        await fixture.create("later", worker_job(not_before=str(due)))
        assert [job.job_id for job in await fixture.claim(most=3)] == ["old"]
        clock.advance(2)
        assert [job.job_id for job in await fixture.claim(most=3)] == ["a"]
        clock.advance(2)
        assert [job.job_id for job in await fixture.claim(most=3)] == ["later"]

    async def test_late_create_after_jump_restores_no_deleted_job(self, fixture: StoreFixture) -> None:
        """After a clock was set ahead, a late repetition of a submit ran a deleted job again."""
        clock = needs_moving_clock(fixture)
        create, delete = (
            plans.plan_create(worker_job(), fixture.operation_id()),
            plans.plan_delete(fixture.operation_id()),
        )
        await fixture.do("a", create)
        await fixture.do("a", delete)
        clock.advance(FIFTY_MINUTES)
        await sweep(fixture)
        await purge_older(fixture.store, ttl=TWO_HOURS)
        outcome = await fixture.attempt("a", create)
        assert (outcome.accepted, outcome.repeated) == (False, True)
        assert await fixture.store.get("a") is None
        await fixture.create("a", worker_job())
        assert (await fixture.attempt("a", delete)).repeated
        assert (await fixture.job("a")).status.value == "pending"

    async def test_late_retry_and_cancel_are_recognised_after_jump(self, fixture: StoreFixture) -> None:
        """After a clock was set ahead, a late repetition of a retry ran a job again that had been cancelled since."""
        clock = needs_moving_clock(fixture)
        await fixture.create("a", worker_job())
        cancel, retry = plans.plan_cancel(fixture.operation_id()), plans.plan_retry(fixture.operation_id())
        await fixture.do("a", cancel)
        await fixture.do("a", retry)
        clock.advance(FIFTY_MINUTES)
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        assert (await fixture.attempt("a", retry)).repeated
        assert (await fixture.job("a")).status.value == "cancelled"
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        assert (await fixture.attempt("a", cancel)).repeated
        assert (await fixture.job("a")).status.value == "pending"

    async def test_repeated_claim_after_jump_starts_nothing(self, fixture: StoreFixture) -> None:
        """After a clock was set ahead, a repeated claim started other jobs, and the first ones were lost."""
        clock = needs_moving_clock(fixture)
        await fixture.create("a", worker_job())
        await fixture.create("b", worker_job())
        claim = Claim("w1", {"q": None}, fixture.starts(1), fixture.operation_id())
        first = (await fixture.store.apply([], claim)).claimed
        clock.advance(FIFTY_MINUTES)
        await purge_older(fixture.store, ttl=TWO_HOURS)
        again = (await fixture.store.apply([], claim)).claimed
        assert [job.job_id for job in first] == [job.job_id for job in again] == ["a"]
