"""Schedules: the job of a tick is created and the schedule moved in one step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from milepost.core import transitions as plans
from milepost.core.schedule import Overlap, Schedule
from milepost.core.serialization import from_micros
from milepost.core.transitions.change import Change
from milepost.run.schedules import fire_due
from milepost.stores.protocol import Write
from milepost.stores.retention import purge_older
from milepost.testing.conformance.harness import Scenarios, StoreFixture, token_of, worker_job
from milepost.testing.conformance.transition_matrix import fail

KEY = "schedule/s"
SWEEPERS = 8
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def fire(fixture: StoreFixture, before: int) -> Change:
    """Return the change for one tick of a schedule whose value counts its ticks."""
    return plans.plan_fire(worker_job(), fixture.operation_id(), key=KEY, before=str(before), after=str(before + 1))


class Schedules(Scenarios):
    """I32: at most one job for each schedule and tick, and none is missed."""

    async def test_tick_makes_one_job_for_many_sweepers(self, fixture: StoreFixture) -> None:
        await fixture.store.kv_put(KEY, "0")
        for tick in range(3):
            writes = [Write(f"s:{tick}", fire(fixture, tick)) for _ in range(SWEEPERS)]
            accepted = [one.accepted for one in (await fixture.store.apply(writes)).outcomes]
            assert accepted == [True] + [False] * (SWEEPERS - 1)
        assert [job.job_id for job in reversed(await fixture.claim(["q"], 5))] == ["s:2", "s:1", "s:0"]
        item = await fixture.store.kv_get(KEY)
        assert item is not None
        assert item.value == "3"

    async def test_late_sweeper_never_makes_removed_job_again(self, fixture: StoreFixture) -> None:
        """I32 after a delete and after retention: a sweeper that read the schedule before writes nothing."""
        await fixture.store.kv_put(KEY, "0")
        late = [fire(fixture, 0), fire(fixture, 0)]
        await fixture.do("s:0", fire(fixture, 0))
        await fixture.do("s:0", plans.plan_delete(fixture.operation_id()))
        await fixture.refused("s:0", late[0])
        await fixture.do("s:1", fire(fixture, 1))
        await fixture.do("s:1", plans.plan_cancel(fixture.operation_id(), by="ana"))
        await fixture.tick()
        assert await purge_older(fixture.store, ttl=0) == 1
        await fixture.refused("s:1", late[1])
        await fixture.refused("s:1", fire(fixture, 1))

    async def test_refused_tick_changes_nothing(self, fixture: StoreFixture) -> None:
        await fixture.refused("s:0", fire(fixture, 0))  # there is no schedule
        version = await fixture.store.kv_put(KEY, "0")
        await fixture.create("s:0", worker_job())
        await fixture.refused("s:0", fire(fixture, 0))  # the id is taken
        await fixture.refused("s:1", fire(fixture, 1))  # the schedule has another value
        item = await fixture.store.kv_get(KEY)
        assert item is not None
        assert (item.value, item.version) == ("0", version)
        assert await fixture.store.get("s:1") is None

    async def test_tick_with_taken_unique_key_is_refused(self, fixture: StoreFixture) -> None:
        await fixture.store.kv_put(KEY, "0")
        await fixture.create("owner", worker_job(unique_key="k"))
        fields = {name: text for name, text in worker_job(unique_key="k").items() if name != "budget"}
        change = plans.plan_fire(fields, fixture.operation_id(), key=KEY, before="0", after="1")
        outcome = await fixture.attempt("s:0", change)
        assert (outcome.accepted, outcome.key_owner_id) == (False, "owner")

    async def test_repeated_request_has_no_second_effect(self, fixture: StoreFixture) -> None:
        await fixture.store.kv_put(KEY, "0")
        change = fire(fixture, 0)
        first = await fixture.attempt("s:0", change)
        again = await fixture.attempt("s:0", change)
        assert (first.branch, first.repeated, again.branch, again.repeated) == (0, False, 0, True)
        item = await fixture.store.kv_get(KEY)
        assert item is not None
        assert item.value == "1"

    async def test_ticks_of_one_request_follow_each_other(self, fixture: StoreFixture) -> None:
        version = await fixture.store.kv_put(KEY, "0")
        writes = [Write(f"s:{tick}", fire(fixture, tick)) for tick in (0, 1, 3, 2)]
        accepted = [one.accepted for one in (await fixture.store.apply(writes)).outcomes]
        assert accepted == [True, True, False, True]
        assert await fixture.store.kv_put(KEY, "0", version=version) is None, "a tick gives the value a new version"

    async def test_concurrent_sweepers_fire_each_missed_tick_once(self, fixture: StoreFixture) -> None:
        now = from_micros(await fixture.store.now())
        first = EPOCH + timedelta(seconds=int((now - EPOCH).total_seconds()) // 60 * 60 - 20 * 60)
        schedule = Schedule(
            name="every", job_type="t", every=60.0, catch_up="all", overlap="allow", next_at=first, fields=worker_job()
        )
        await fixture.store.kv_put(schedule.key, schedule.to_text())
        made = await fire_concurrently(fixture, SWEEPERS)
        item = await fixture.store.kv_get(schedule.key)
        assert item is not None
        fired = Schedule.from_text(item.value)
        assert sum(made) == fired.fired >= 21
        for tick in range(21):
            job = await fixture.store.get(schedule.job_id(first + timedelta(minutes=tick)))
            assert job is not None
            assert job.scheduled_at == first + timedelta(minutes=tick)
            assert job.schedule == "every"
        assert await fixture.store.counts() == {("t", "pending"): fired.fired}

    async def test_missed_ticks_run_one_after_the_other(self, fixture: StoreFixture) -> None:
        now = from_micros(await fixture.store.now())
        first = EPOCH + timedelta(seconds=int((now - EPOCH).total_seconds()) // 3600 * 3600 - 2 * 3600)
        schedule = Schedule(
            name="chain", job_type="t", every=3600.0, catch_up="all", next_at=first, fields=worker_job(attempts=1)
        )
        await fixture.store.kv_put(schedule.key, schedule.to_text())
        assert await fire_due(fixture.store, fixture.operation_id) == 3
        for tick in range(3):
            (job,) = await fixture.claim(["q"], 5)
            assert job.scheduled_at == first + timedelta(hours=tick)
            await fixture.do(job.job_id, plans.plan_cancel(fixture.operation_id(), by="ana"))
            stopped = plans.plan_receipt(fixture.operation_id(), token_of(job), how="cooperative", confirmed=True)
            await fixture.do(job.job_id, stopped)

    async def test_open_job_skips_or_queues_next_tick(self, fixture: StoreFixture) -> None:
        cases: dict[Overlap, list[int]] = {"skip": [1, 0, 0], "queue": [1, 1, 0], "allow": [1, 1, 1]}
        for overlap, made in cases.items():
            found, last = [], None
            for number in range(3):  # each with a name of its own, so that the same tick is another job
                schedule = Schedule(
                    name=f"{overlap}{number}", job_type="t", every=60.0, overlap=overlap, next_at=EPOCH,
                    last_job_id=last, fields=worker_job(overlap),
                )  # fmt: skip
                await fixture.store.kv_put(schedule.key, schedule.to_text())
                found.append(await fire_due(fixture.store, fixture.operation_id))
                item = await fixture.store.kv_get(schedule.key)
                assert item is not None
                last = Schedule.from_text(item.value).last_job_id
                await fixture.store.kv_delete(schedule.key)
                await fixture.claim([overlap], 5)
            assert found == made, overlap

    async def test_next_tick_waits_for_code_of_ended_job(self, fixture: StoreFixture) -> None:
        """I28 for the jobs of a schedule: also of a job that was cancelled or removed, and whose code still runs."""
        ends: dict[str, Callable[[str], Change]] = {
            "cancelled": lambda by: plans.plan_cancel(by, by="ana"),
            "removed": plans.plan_delete,
        }
        for how, end in ends.items():
            await fixture.create(how, worker_job(how))
            (run,) = await fixture.claim([how], 1)
            await fixture.do(how, end(fixture.operation_id()))
            skipped = await fire_after(fixture, how, "skip")
            assert (skipped.fired, skipped.skipped) == (0, 1), how
            queued = await fire_after(fixture, how, "queue")
            assert queued.fired == (0 if how == "removed" else 1), how
            assert queued.skipped == 0
            assert await fixture.claim([how], 1) == [], "held until the code has stopped"
            stopped = plans.plan_receipt(fixture.operation_id(), token_of(run), how="cooperative", confirmed=True)
            await fixture.do(how, stopped)
            if how == "removed":
                queued = await fire_after(fixture, how, "queue")
            assert [job.job_id for job in await fixture.claim([how], 1)] == [queued.last_job_id]

    async def test_tick_queues_behind_job_that_waits_for_a_retry(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job("retry", attempts=2))
        (run,) = await fixture.claim(["retry"], 1)
        await fixture.do("a", fail(fixture.operation_id(), token_of(run), delay=3_600_000_000))
        assert (await fire_after(fixture, "retry", "queue", last="a")).fired == 1


async def fire_after(fixture: StoreFixture, queue: str, overlap: Overlap, last: str | None = None) -> Schedule:
    """Fire a schedule whose last job is this one, and return it."""
    schedule = Schedule(
        name=f"{overlap}-{queue}", job_type="t", every=60.0, overlap=overlap, next_at=EPOCH,
        last_job_id=last or queue, fields=worker_job(queue),
    )  # fmt: skip
    await fixture.store.kv_put(schedule.key, schedule.to_text())
    await fire_due(fixture.store, fixture.operation_id)
    item = await fixture.store.kv_get(schedule.key)
    assert item is not None
    await fixture.store.kv_delete(schedule.key)
    return Schedule.from_text(item.value)


async def fire_concurrently(fixture: StoreFixture, count: int) -> list[int]:
    """Fire by several sweepers: at once over an async store, one after the other over a blocking one."""
    if fixture.store.blocking:
        return [await fire_due(fixture.store, fixture.operation_id) for _ in range(count)]
    return await asyncio.gather(*(fire_due(fixture.store, fixture.operation_id) for _ in range(count)))
