"""Sweeping and retention: what is due, who is given time after an outage, what goes when it is old."""

from __future__ import annotations

from milepost.core import lifecycle as plans
from milepost.stores.protocol import Pass, Select, Write
from milepost.testing.conformance.harness import LONG, Scenarios, World, caller_job, token_of, track_job, worker_job
from milepost.testing.conformance.language import made

HOUR = 3600.0


def kinds(found: Pass) -> dict[str, str]:
    """job id -> kind of what is due."""
    return {due.job_id: due.kind for due in found.due}


class Sweeping(Scenarios):
    """Finding what nobody speaks for."""

    async def test_everything_that_is_due_is_found(self, world: World) -> None:
        await world.create("late", worker_job(not_after="1"))
        await world.create("in_time", worker_job(not_after=str(1 << 52)))
        await world.create("lost", worker_job())
        await world.start("lost", lease=0)
        await world.create("live", worker_job())
        await world.start("live")
        await world.track("lost_track", track_job(), lease=0)
        await world.create("stopping", worker_job())
        token = token_of(await world.start("stopping", lease=0))
        await world.do("stopping", plans.plan_cancel(world.op()))
        await world.create("asked", worker_job())
        await world.start("asked")
        await world.do("asked", plans.plan_cancel(world.op()))
        await world.create("ghost", worker_job())
        ghost = token_of(await world.start("ghost", lease=0))
        await world.do("ghost", plans.plan_delete(world.op()))
        await world.create("quiet", caller_job(stale_after="0"))
        await world.do("quiet", plans.plan_update(world.op(), "running"))
        await world.create("talking", caller_job(stale_after=str(LONG)))
        await world.do("talking", plans.plan_update(world.op(), "running"))
        await world.tick()
        found = await world.store.sweep(lease=HOUR, interval=0)
        assert (found.skipped, found.held, found.more) == (False, False, False)
        assert kinds(found) == {
            "late": "deadline", "lost": "lease", "lost_track": "lease", "stopping": "stopping", "ghost": "stopping",
            "quiet": "stale",
        }  # fmt: skip
        by_id = {due.job_id: due for due in found.due}
        assert (by_id["stopping"].token, by_id["ghost"].token, by_id["ghost"].job) == (token, ghost, None)
        assert all(due.job is not None for due in found.due if due.job_id != "ghost")
        assert by_id["lost"].job is not None
        assert dict(by_id["lost"].job.record) == dict((await world.job("lost")).record)

    async def test_what_was_dealt_with_is_no_longer_due(self, world: World) -> None:
        await world.create("late", worker_job(not_after="1"))
        await world.create("lost", worker_job())
        await world.start("lost", lease=0)
        await world.create("quiet", caller_job(stale_after="0"))
        await world.do("quiet", plans.plan_update(world.op(), "running"))
        await world.create("ghost", worker_job())
        ghost = token_of(await world.start("ghost", lease=0))
        await world.do("ghost", plans.plan_delete(world.op()))
        await world.tick()
        assert len((await world.store.sweep(lease=HOUR, interval=0)).due) == 4
        assert len((await world.store.sweep(lease=HOUR, interval=0)).due) == 4, "to find is not to change"
        await world.do("late", plans.plan_expire(world.op(), error="", failure="{}"))
        await world.do("lost", plans.plan_lost(world.op(), error="", failure="{}", crash_loop="{}", crashes_left=2))
        job = await world.made("quiet", plans.plan_quiet(world.op(), error="", failure="{}", reason="no update"))
        assert job.stalled == "no update"
        await world.do("ghost", plans.plan_run_out(world.op(), ghost))
        assert (await world.store.sweep(lease=HOUR, interval=0)).due == []
        assert await world.store.stoppings() == []
        job = await world.made("quiet", plans.plan_update(world.op(), None, message="here"))
        assert job.stalled is None

    async def test_a_renewal_takes_a_lease_out_of_what_is_due(self, world: World) -> None:
        for name in ("live", "stopping"):
            await world.create(name, worker_job())
        tokens = {name: token_of(await world.start(name, lease=0)) for name in ("live", "stopping")}
        await world.do("stopping", plans.plan_cancel(world.op()))
        await world.tick()
        assert len((await world.store.sweep(lease=HOUR, interval=0)).due) == 2
        await world.store.renew(list(tokens.items()), LONG)
        assert (await world.store.sweep(lease=HOUR, interval=0)).due == []

    async def test_two_sweeps_within_an_interval_are_one(self, world: World) -> None:
        await world.create("lost", worker_job())
        await world.start("lost", lease=0)
        await world.tick()
        assert kinds(await world.store.sweep(lease=HOUR, interval=HOUR)) == {"lost": "lease"}
        again = await world.store.sweep(lease=HOUR, interval=HOUR)
        assert (again.due, again.skipped) == ([], True)
        assert not (await world.store.sweep(lease=HOUR, interval=0)).skipped

    async def test_after_an_outage_living_owners_renew_first(self, world: World) -> None:
        """The hold: nobody swept for half a lease, so leases are left alone for a whole one."""
        store = world.store
        await world.create("late", worker_job(not_after="1"))
        for name in ("dead", "alive"):
            await world.create(name, worker_job())
        await world.start("dead", lease=0)
        alive = token_of(await world.start("alive", lease=0))
        await world.create("ghost", worker_job())
        await world.start("ghost", lease=0)
        await world.do("ghost", plans.plan_delete(world.op()))
        await store.sweep(lease=HOUR, interval=0)
        lease = 0.04
        await world.until(await store.now() + int(lease * 500_000) + 1_000)
        held = await store.sweep(lease=lease, interval=0)
        hold_began = await store.now()
        assert held.held
        assert kinds(held) == {"late": "deadline"}
        await store.renew([("alive", alive)], LONG)
        await world.until(hold_began + int(lease * 1_000_000))
        after = await store.sweep(lease=lease, interval=0)
        assert not after.held, "the first pass after the hold takes what was not renewed, however late it comes"
        assert kinds(after) == {"late": "deadline", "dead": "lease", "ghost": "stopping"}
        await world.until(await store.now() + int(lease * 500_000) + 1_000)
        assert (await store.sweep(lease=lease, interval=0)).held, "a new outage, a new hold"

    async def test_no_lease_is_due_in_the_middle_of_a_hold(self, world: World) -> None:
        store = world.store
        await world.create("dead", worker_job())
        await world.start("dead", lease=0)
        await store.sweep(lease=HOUR, interval=0)
        await world.until(await store.now() + 11_000)
        assert (await store.sweep(lease=0.02, interval=0)).held
        held = await store.sweep(lease=HOUR, interval=0)
        began = await store.now()
        if held.held:
            assert held.due == []
        await world.until(began + 20_000)
        assert kinds(await store.sweep(lease=HOUR, interval=0)) == {"dead": "lease"}

    async def test_the_first_sweep_of_all_holds_nothing(self, world: World) -> None:
        await world.create("lost", worker_job())
        await world.start("lost", lease=0)
        await world.tick()
        found = await world.store.sweep(lease=0.000_01, interval=0)
        assert (found.held, kinds(found)) == (False, {"lost": "lease"})

    async def test_a_long_list_comes_in_parts(self, world: World) -> None:
        for number in range(5):
            await world.create(f"late{number}", worker_job(not_after=str(1 + number)))
        part = await world.store.sweep(lease=HOUR, interval=0, limit=3)
        assert [d.job_id for d in part.due] == ["late0", "late1", "late2"]
        assert part.more
        rest = await world.store.sweep(lease=HOUR, interval=0, limit=5)
        assert len(rest.due) == 5
        assert not rest.more


class Retention(Scenarios):
    """What goes when it is old."""

    async def test_only_what_ended_long_enough_ago_goes(self, world: World) -> None:
        ids = ["pending", "running", "old", "older", "new"]
        for name in ids:
            await world.create(name, worker_job(labels="owner=ana"))
        await world.start("running")
        for name in ("older", "old"):
            await world.do(name, plans.plan_cancel(world.op()))
            await world.tick()
        await world.tick()
        assert await world.store.purge(ttl=HOUR) == 0
        assert await world.store.purge(ttl=0, limit=1) == 1
        assert await world.store.get("older") is None
        assert (await world.job("old")).status.value == "cancelled"
        assert await world.store.purge(ttl=0) == 1
        await world.do("new", plans.plan_cancel(world.op()))
        assert await world.store.purge(ttl=HOUR) == 0
        assert {j.job_id for j in await world.store.select(Select(), 9)} == {"pending", "running", "new"}

    async def test_a_job_goes_with_its_indexes_events_and_keys(self, world: World) -> None:
        fields = worker_job(labels="owner=ana", unique_key="k", stalled="s")
        await world.create("a", fields)
        await world.do("a", plans.plan_cancel(world.op()))
        await world.tick()
        assert await world.store.purge(ttl=0) == 1
        assert await world.store.purge(ttl=0) == 0
        assert await world.store.get("a") is None
        assert await world.store.events("a") == []
        assert await world.store.counts() == {}
        assert await world.store.count(Select(labels=(("owner", "ana"),))) == 0
        assert await world.store.count(Select(stalled=True)) == 0
        outcome = await world.attempt("b", plans.plan_create({**fields, "stalled": ""}, world.op()))
        assert outcome.accepted
        await world.refused("a", plans.plan_retry(world.op()))

    async def test_a_retried_job_is_not_taken_for_its_earlier_end(self, world: World) -> None:
        await world.create("a", worker_job())
        await world.do("a", plans.plan_cancel(world.op()))
        await world.tick()
        await world.do("a", plans.plan_retry(world.op()))
        assert await world.store.purge(ttl=0) == 0
        await world.do("a", plans.plan_cancel(world.op()))
        assert await world.store.purge(ttl=HOUR) == 0
        await world.tick()
        assert await world.store.purge(ttl=0) == 1

    async def test_a_stopping_lease_outlives_the_retention_of_its_job(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_cancel(world.op()))
        await world.tick()
        assert await world.store.purge(ttl=0) == 1
        assert [(i, t) for i, t, _ in await world.store.stoppings()] == [("a", token)]
        await world.create("a", worker_job())
        assert await world.claim() == []
        await world.do("a", plans.plan_receipt(world.op(), token, "killed", confirmed=True))
        assert len(await world.claim()) == 1

    async def test_many_go_in_batches(self, world: World) -> None:
        writes = [Write(f"j{n:04d}", plans.plan_create(worker_job(), world.op())) for n in range(250)]
        await world.store.apply(writes)
        ends = [Write(w.job_id, plans.plan_cancel(world.op()), answer=False) for w in writes]
        await world.store.apply(ends)
        await world.tick()
        gone = []
        while number := await world.store.purge(ttl=0, limit=100):
            gone.append(number)
        assert gone == [100, 100, 50]
        assert await world.store.counts() == {}

    async def test_a_record_of_another_time_is_placed_by_its_own_stamps(self, world: World) -> None:
        await world.do("a", made(world.op(), "completed", completed="1000", started="500"))
        await world.do("b", made(world.op(), "completed", completed=str(1 << 52), started="500"))
        assert await world.store.purge(ttl=HOUR) == 1
        assert await world.store.get("a") is None
