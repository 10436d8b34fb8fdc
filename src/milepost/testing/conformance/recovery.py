"""Sweeps and retention: what is due, the hold after an outage, and the purge of old jobs."""

from __future__ import annotations

from collections import Counter

from milepost.core import transitions as plans
from milepost.core.transitions.change import Change
from milepost.stores.protocol import Select, SweepResult, Write
from milepost.stores.retention import purge_older
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    StoreFixture,
    caller_job,
    create_record,
    queue_job,
    token_of,
    track_job,
    worker_job,
)

HOUR = 3600.0


def kinds(found: SweepResult) -> dict[str, str]:
    """Return job id -> kind of the due item."""
    return {due.job_id: due.kind for due in found.due}


class Sweeping(Scenarios):
    """Sweeps."""

    async def test_sweep_finds_everything_due(self, fixture: StoreFixture) -> None:
        await fixture.create("late", worker_job(not_after="1"))
        await fixture.create("in_time", worker_job(not_after=str(1 << 52)))
        await fixture.create("lost", worker_job())
        await fixture.start("lost", lease=0)
        await fixture.create("live", worker_job())
        await fixture.start("live")
        await fixture.track("lost_track", track_job(), lease=0)
        await fixture.create("stopping", worker_job())
        token = token_of(await fixture.start("stopping", lease=0))
        await fixture.do("stopping", plans.plan_cancel(fixture.operation_id()))
        await fixture.create("asked", worker_job())
        await fixture.start("asked")
        await fixture.do("asked", plans.plan_cancel(fixture.operation_id()))
        await fixture.create("ghost", worker_job())
        ghost = token_of(await fixture.start("ghost", lease=0))
        await fixture.do("ghost", plans.plan_delete(fixture.operation_id()))
        await fixture.create("quiet", caller_job(stale_after="0"))
        await fixture.do("quiet", plans.plan_update(fixture.operation_id(), "running"))
        await fixture.create("talking", caller_job(stale_after=str(LONG)))
        await fixture.do("talking", plans.plan_update(fixture.operation_id(), "running"))
        await fixture.tick()
        found = await fixture.store.sweep(lease=HOUR, interval=0)
        assert (found.skipped, found.held, found.more) == (False, False, False)
        assert kinds(found) == {
            "late": "deadline", "lost": "lease", "lost_track": "lease", "stopping": "stopping", "ghost": "stopping",
            "quiet": "stale",
        }  # fmt: skip
        by_id = {due.job_id: due for due in found.due}
        assert (by_id["stopping"].token, by_id["ghost"].token, by_id["ghost"].job) == (token, ghost, None)
        assert all(due.job is not None for due in found.due if due.job_id != "ghost")
        assert by_id["lost"].job is not None
        assert dict(by_id["lost"].job.record) == dict((await fixture.job("lost")).record)

    async def test_handled_item_is_no_longer_due(self, fixture: StoreFixture) -> None:
        await fixture.create("late", worker_job(not_after="1"))
        await fixture.create("lost", worker_job())
        await fixture.start("lost", lease=0)
        await fixture.create("quiet", caller_job(stale_after="0"))
        await fixture.do("quiet", plans.plan_update(fixture.operation_id(), "running"))
        await fixture.create("ghost", worker_job())
        ghost = token_of(await fixture.start("ghost", lease=0))
        await fixture.do("ghost", plans.plan_delete(fixture.operation_id()))
        await fixture.tick()
        assert len((await fixture.store.sweep(lease=HOUR, interval=0)).due) == 4
        assert len((await fixture.store.sweep(lease=HOUR, interval=0)).due) == 4, "a sweep changes no record"
        await fixture.do("late", plans.plan_expire(fixture.operation_id(), error="", failure="{}"))
        await fixture.do(
            "lost",
            plans.plan_lease_expired(fixture.operation_id(), error="", failure="{}", crash_loop="{}", crashes_left=2),
        )
        job = await fixture.made(
            "quiet", plans.plan_mark_stale(fixture.operation_id(), error="", failure="{}", reason="no update")
        )
        assert job.stalled == "no update"
        await fixture.do("ghost", plans.plan_drain_timeout(fixture.operation_id(), ghost))
        assert (await fixture.store.sweep(lease=HOUR, interval=0)).due == []
        assert await fixture.store.draining_leases() == []
        job = await fixture.made("quiet", plans.plan_update(fixture.operation_id(), None, message="here"))
        assert job.stalled is None

    async def test_renewed_lease_is_not_due(self, fixture: StoreFixture) -> None:
        for name in ("live", "stopping"):
            await fixture.create(name, worker_job())
        tokens = {name: token_of(await fixture.start(name, lease=0)) for name in ("live", "stopping")}
        await fixture.do("stopping", plans.plan_cancel(fixture.operation_id()))
        await fixture.tick()
        assert len((await fixture.store.sweep(lease=HOUR, interval=0)).due) == 2
        await fixture.store.renew(list(tokens.items()), LONG)
        assert (await fixture.store.sweep(lease=HOUR, interval=0)).due == []

    async def test_message_used_up_for_the_same_reason_is_not_noted_as_sent(self, fixture: StoreFixture) -> None:
        """A job whose second message was used up for the reason of the first waited until it counted as lost."""
        await fixture.create("a", queue_job(task_queue="celery", dispatch_after="0"))

        async def use_up() -> None:
            await fixture.do("a", plans.plan_undispatchable(fixture.operation_id(), 0, "no handler"))
            await fixture.tick()

        async def sent() -> Change:
            (due,) = (await fixture.store.sweep(lease=HOUR, interval=0, task_queue="celery")).due
            assert due.job is not None
            known = due.job.record.get("update_ops", "")
            return plans.plan_dispatched(fixture.operation_id(), LONG, due.job.version, known)

        for _ in range(3):
            note = await sent()
            await use_up()
            await fixture.refused("a", note)
        job = await fixture.made("a", await sent())
        assert (job.stalled, int(job.record["stale"]) > await fixture.store.now()) == (None, True)

    async def test_second_sweep_within_interval_is_skipped(self, fixture: StoreFixture) -> None:
        await fixture.create("lost", worker_job())
        await fixture.start("lost", lease=0)
        await fixture.tick()
        assert kinds(await fixture.store.sweep(lease=HOUR, interval=HOUR)) == {"lost": "lease"}
        again = await fixture.store.sweep(lease=HOUR, interval=HOUR)
        assert (again.due, again.skipped) == ([], True)
        assert not (await fixture.store.sweep(lease=HOUR, interval=0)).skipped

    async def test_owners_renew_first_after_outage(self, fixture: StoreFixture) -> None:
        """If no sweep ran for half a lease, no lease is due for a whole one."""
        store = fixture.store
        await fixture.create("late", worker_job(not_after="1"))
        for name in ("dead", "alive"):
            await fixture.create(name, worker_job())
        await fixture.start("dead", lease=0)
        alive = token_of(await fixture.start("alive", lease=0))
        await fixture.create("ghost", worker_job())
        await fixture.start("ghost", lease=0)
        await fixture.do("ghost", plans.plan_delete(fixture.operation_id()))
        await store.sweep(lease=HOUR, interval=0)
        lease = 0.04
        await fixture.until(await store.now() + int(lease * 500_000) + 1_000)
        held = await store.sweep(lease=lease, interval=0)
        hold_began = await store.now()
        assert held.held
        assert kinds(held) == {"late": "deadline"}
        await store.renew([("alive", alive)], LONG)
        await fixture.until(hold_began + int(lease * 1_000_000))
        after = await store.sweep(lease=lease, interval=0)
        assert after.held, "a late sweep is a new outage with a new hold"
        assert kinds(after) == {"late": "deadline", "dead": "lease", "ghost": "stopping"}, "what was not renewed since"

    async def test_no_lease_is_due_during_hold(self, fixture: StoreFixture) -> None:
        store = fixture.store
        await fixture.create("dead", worker_job())
        await fixture.start("dead", lease=0)
        await store.sweep(lease=HOUR, interval=0)
        await fixture.until(await store.now() + 11_000)
        assert (await store.sweep(lease=0.02, interval=0)).held
        held = await store.sweep(lease=HOUR, interval=0)
        began = await store.now()
        if held.held:
            assert held.due == []
        await fixture.until(began + 20_000)
        assert kinds(await store.sweep(lease=HOUR, interval=0)) == {"dead": "lease"}

    async def test_first_sweep_has_no_hold(self, fixture: StoreFixture) -> None:
        await fixture.create("lost", worker_job())
        await fixture.start("lost", lease=0)
        await fixture.tick()
        found = await fixture.store.sweep(lease=0.000_01, interval=0)
        assert (found.held, kinds(found)) == (False, {"lost": "lease"})

    async def test_sweep_respects_limit(self, fixture: StoreFixture) -> None:
        for number in range(5):
            await fixture.create(f"late{number}", worker_job(not_after=str(1 + number)))
        part = await fixture.store.sweep(lease=HOUR, interval=0, limit=3)
        assert [d.job_id for d in part.due] == ["late0", "late1", "late2"]
        assert part.more
        rest = await fixture.store.sweep(lease=HOUR, interval=0, limit=5)
        assert len(rest.due) == 5
        assert not rest.more

    async def test_sweep_limit_applies_per_kind(self, fixture: StoreFixture) -> None:
        """More than 200 jobs waiting for a task queue hid draining leases and stale jobs from sweeps."""
        for number in range(5):
            await fixture.create(f"late{number}", worker_job(not_after=str(1 + number)))
            await fixture.create(f"waits{number}", queue_job(task_queue="celery", dispatch_after="0"))
        await fixture.create("lost", worker_job())
        await fixture.start("lost", lease=0)
        await fixture.create("ghost", worker_job())
        await fixture.start("ghost", lease=0)
        await fixture.do("ghost", plans.plan_delete(fixture.operation_id()))
        await fixture.tick()
        part = await fixture.store.sweep(lease=HOUR, interval=0, limit=3)
        assert Counter(due.kind for due in part.due) == {"lease": 1, "deadline": 3, "stale": 3, "stopping": 1}
        assert part.more
        whole = await fixture.store.sweep(lease=HOUR, interval=0, limit=5)
        assert Counter(due.kind for due in whole.due) == {"lease": 1, "deadline": 5, "stale": 5, "stopping": 1}
        assert not whole.more

    async def test_jobs_of_other_task_queues_are_left_at_first(self, fixture: StoreFixture) -> None:
        """A steady flow of jobs for one task queue hid the jobs of another one, and stale jobs, from sweeps."""
        for number in range(4):
            await fixture.create(f"other{number}", queue_job(task_queue="celery", dispatch_after="0"))
        await fixture.create("own", queue_job(task_queue="rq", dispatch_after="0"))
        await fixture.create("quiet", caller_job(stale_after="0"))
        await fixture.do("quiet", plans.plan_update(fixture.operation_id(), "running"))
        await fixture.tick()

        async def found(task_queue: str | None, unreached: float) -> tuple[set[str], bool]:
            swept = await fixture.store.sweep(
                lease=HOUR, interval=0, limit=2, task_queue=task_queue, unreached=unreached
            )
            return set(kinds(swept)), swept.more

        assert await found("rq", HOUR) == ({"own", "quiet"}, False)
        assert await found(None, HOUR) == ({"quiet"}, False)
        assert await found("celery", HOUR) == ({"other0", "other1"}, True)
        assert await found("rq", 0.0) == ({"other0", "other1"}, True)


class Retention(Scenarios):
    """Purge of ended jobs."""

    async def test_purge_removes_only_old_jobs(self, fixture: StoreFixture) -> None:
        ids = ["pending", "running", "old", "older", "new"]
        for name in ids:
            await fixture.create(name, worker_job(labels="owner=ana"))
        await fixture.start("running")
        for name in ("older", "old"):
            await fixture.do(name, plans.plan_cancel(fixture.operation_id()))
            await fixture.tick()
        await fixture.tick()
        assert await purge_older(fixture.store, ttl=HOUR) == 0
        assert await fixture.store.purge(before=await fixture.store.now(), limit=1) == (1, True)
        assert await fixture.store.get("older") is None
        assert (await fixture.job("old")).status.value == "cancelled"
        assert await purge_older(fixture.store, ttl=0) == 1
        await fixture.do("new", plans.plan_cancel(fixture.operation_id()))
        assert await purge_older(fixture.store, ttl=HOUR) == 0
        assert {j.job_id for j in await fixture.store.select(Select(), 9)} == {"pending", "running", "new"}

    async def test_purge_removes_indexes_events_and_keys(self, fixture: StoreFixture) -> None:
        fields = worker_job(labels="owner=ana", unique_key="k", stalled="s")
        await fixture.create("a", fields)
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.tick()
        assert await purge_older(fixture.store, ttl=0) == 1
        assert await purge_older(fixture.store, ttl=0) == 0
        assert await fixture.store.get("a") is None
        assert await fixture.store.events("a") == []
        assert await fixture.store.counts() == {}
        assert await fixture.store.count(Select(labels=(("owner", "ana"),))) == 0
        assert await fixture.store.count(Select(stalled=True)) == 0
        outcome = await fixture.attempt("b", plans.plan_create({**fields, "stalled": ""}, fixture.operation_id()))
        assert outcome.accepted
        await fixture.refused("a", plans.plan_retry(fixture.operation_id()))

    async def test_purge_ignores_earlier_end_of_retried_job(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.tick()
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        assert await purge_older(fixture.store, ttl=0) == 0
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        assert await purge_older(fixture.store, ttl=HOUR) == 0
        await fixture.tick()
        assert await purge_older(fixture.store, ttl=0) == 1

    async def test_draining_lease_outlives_purge(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.tick()
        assert await purge_older(fixture.store, ttl=0) == 1
        assert [(i, t) for i, t, _ in await fixture.store.draining_leases()] == [("a", token)]
        await fixture.create("a", worker_job())
        assert await fixture.claim() == []
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "killed", confirmed=True))
        assert len(await fixture.claim()) == 1

    async def test_purge_runs_in_batches(self, fixture: StoreFixture) -> None:
        writes = [Write(f"j{n:04d}", plans.plan_create(worker_job(), fixture.operation_id())) for n in range(250)]
        await fixture.store.apply(writes)
        ends = [Write(w.job_id, plans.plan_cancel(fixture.operation_id()), answer=False) for w in writes]
        await fixture.store.apply(ends)
        await fixture.tick()
        before = await fixture.store.now()
        slices = [await fixture.store.purge(before=before, limit=100) for _ in range(3)]
        assert slices == [(100, True), (100, True), (50, False)]
        assert await fixture.store.counts() == {}

    async def test_old_record_is_indexed_by_own_times(self, fixture: StoreFixture) -> None:
        await fixture.do("a", create_record(fixture.operation_id(), "completed", completed="1000", started="500"))
        await fixture.do("b", create_record(fixture.operation_id(), "completed", completed=str(1 << 52), started="500"))
        assert await purge_older(fixture.store, ttl=HOUR) == 1
        assert await fixture.store.get("a") is None
