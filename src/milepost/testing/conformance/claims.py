"""Claiming: which job comes next, how many may run, what is not due yet, what wakes an idle worker."""

from __future__ import annotations

import asyncio
import threading

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.stores.driving import drive
from milepost.stores.protocol import Store, Write
from milepost.testing.conformance.cells import FAILURE, fail
from milepost.testing.conformance.harness import Scenarios, World, caller_job, engine_job, token_of, worker_job

SHORT = 20_000
"""Microseconds that a scenario may wait for."""


class Claims(Scenarios):
    """Which job comes next."""

    async def test_priority_then_age_then_id(self, world: World) -> None:
        for name, priority in (
            ("d", "0"),
            ("b", "0"),
            ("low", "-5"),
            ("high", "7"),
            ("c", "0"),
            ("ten", "10"),
            ("a", "0"),
        ):
            await world.create(name, worker_job(priority=priority))
            await world.tick()
        assert [j.job_id for j in await world.claim(most=10)] == ["ten", "high", "d", "b", "c", "a", "low"]

    async def test_of_the_same_age_the_smaller_id_comes_first(self, world: World) -> None:
        born = {"created": str(1_700_000_000_000_000)}
        for name in ("c", "a", "d", "b"):
            await world.do(name, _aged(world, born["created"]))
        assert [j.job_id for j in await world.claim(most=10)] == ["a", "b", "c", "d"]

    async def test_a_retried_job_keeps_its_place_by_age(self, world: World) -> None:
        for name in "abc":
            await world.create(name, worker_job())
            await world.tick()
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_release(world.op(), token, {}))
        assert [j.job_id for j in await world.claim(most=3)] == ["a", "b", "c"]

    async def test_a_claim_starts_what_it_gives(self, world: World) -> None:
        await world.create("a", worker_job())
        before = await world.store.now()
        job = (await world.claim(worker="w7", lease=5_000_000))[0]
        assert (job.status.value, job.worker, job.attempt, job.version) == ("running", "w7", 1, 2)
        assert before + 5_000_000 <= int(job.record["lease"]) <= await world.store.now() + 5_000_000
        assert dict((await world.job("a")).record) == dict(job.record)
        assert await world.claim() == []

    async def test_only_the_queues_that_are_served(self, world: World) -> None:
        await world.create("a", worker_job("q1"))
        await world.create("b", worker_job("q2"))
        await world.create("c", worker_job("q3", priority="9"))
        assert [j.job_id for j in await world.claim(["q2"], 5)] == ["b"]
        assert await world.claim(["nothing"], 5) == []
        assert await world.claim({}, 5) == []
        assert [j.job_id for j in await world.claim(["q1", "q3"], 5)] == ["c", "a"]

    async def test_several_queues_are_one_order(self, world: World) -> None:
        for name, queue, priority in (("a", "q1", "0"), ("b", "q2", "0"), ("c", "q1", "1"), ("d", "q2", "1")):
            await world.create(name, worker_job(queue, priority=priority))
            await world.tick()
        assert [j.job_id for j in await world.claim(["q1", "q2"], 4)] == ["c", "d", "a", "b"]

    async def test_a_claim_never_takes_what_its_caller_or_an_engine_means_to_run(self, world: World) -> None:
        await world.create("a", caller_job())
        await world.create("b", engine_job())
        assert await world.claim(["q", "t", ""], 5) == []

    async def test_one_job_by_its_id(self, world: World) -> None:
        for name in "abc":
            await world.create(name, worker_job())
        assert [j.job_id for j in await world.claim(job_id="b", most=5)] == ["b"]
        assert await world.claim(job_id="b") == []
        assert await world.claim(job_id="nobody") == []
        assert await world.claim(["other"], job_id="a") == []
        assert [j.job_id for j in await world.claim(most=5)] == ["a", "c"]

    async def test_no_more_than_a_queue_may_have(self, world: World) -> None:
        for number in range(4):
            await world.create(f"a{number}", worker_job("q1"))
            await world.create(f"b{number}", worker_job("q2"))
        claimed = await world.claim({"q1": 1, "q2": 2}, 8)
        assert sorted(j.job_id for j in claimed) == ["a0", "b0", "b1"]
        assert await world.claim({"q1": 1, "q2": 2}, 8, worker="w2") == []
        await world.do("a0", plans.plan_complete(world.op(), token_of(claimed[0]), None, {}))
        assert [j.job_id for j in await world.claim({"q1": 1, "q2": 2}, 8)] == ["a1"]
        assert await world.claim({"q1": 0}, 8) == []

    async def test_a_limit_or_a_pause_comes_before_what_a_worker_wants(self, world: World) -> None:
        for number in range(4):
            await world.create(f"a{number}", worker_job())
        store = world.store
        assert await store.limits() == {}
        await store.set_limit("q", 1, False)
        assert await store.limits() == {"q": (1, False)}
        assert [j.job_id for j in await world.claim({"q": 3}, 4)] == ["a0"]
        await store.set_limit("q", 2, True)
        assert await store.limits() == {"q": (2, True)}
        assert await world.claim({"q": None}, 4) == []
        await store.set_limit("q", 2, False)
        assert [j.job_id for j in await world.claim({"q": None}, 4)] == ["a1"]
        for below in (0, -1):
            await store.set_limit("q", below, False)
            assert await world.claim({"q": None}, 4) == []
        await store.set_limit("q", None, True)
        assert await world.claim({"q": None}, 4) == []
        await store.set_limit("q", None, False)
        assert await store.limits() == {}
        assert [j.job_id for j in await world.claim({"q": None}, 4)] == ["a2", "a3"]

    async def test_a_lease_that_ran_out_holds_its_slot_until_it_is_swept(self, world: World) -> None:
        await world.create("a", worker_job())
        await world.create("b", worker_job())
        await world.claim({"q": 1}, lease=0)
        await world.tick()
        assert await world.claim({"q": 1}) == []
        await world.do("a", plans.plan_lost(world.op(), error="", failure="{}", crash_loop="{}", crashes_left=2))
        assert [j.job_id for j in await world.claim({"q": 1})] == ["a"]

    async def test_what_is_scheduled_waits_for_its_time(self, world: World) -> None:
        due = await world.store.now() + SHORT
        await world.create("later", worker_job(not_before=str(due), priority="9"))
        await world.create("much_later", worker_job(not_before=str(due + 3_600_000_000)))
        await world.create("now", worker_job(not_before="1"))
        answer = await world.claiming(most=5)
        if await world.store.now() < due:
            assert [j.job_id for j in answer.claimed] == ["now"]
            assert answer.next_due == due
            await world.refused("much_later", world.starts(1)[0])
        await world.until(due)
        answer = await world.claiming(most=5)
        assert "later" in [j.job_id for j in [*answer.claimed, await world.job("later")]]
        assert (await world.job("later")).status.value == "running"
        assert answer.next_due == due + 3_600_000_000
        assert (await world.job("much_later")).status.value == "pending"

    async def test_the_next_due_is_of_the_queues_that_are_served(self, world: World) -> None:
        now = await world.store.now()
        await world.create("a", worker_job("q1", not_before=str(now + 3_600_000_000)))
        await world.create("b", worker_job("q2", not_before=str(now + 7_200_000_000)))
        answer = await world.claiming(["q1"])
        assert answer.next_due == now + 3_600_000_000
        assert now <= answer.now <= await world.store.now()
        assert (await world.claiming(["q2"])).next_due == now + 7_200_000_000
        assert (await world.claiming(["q1", "q2"])).next_due == now + 3_600_000_000
        assert (await world.claiming(["q3"])).next_due is None
        assert (await world.store.apply([])).next_due is None

    async def test_a_failed_attempt_waits_for_its_delay(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        before = await world.store.now()
        await world.do("a", fail(world.op(), token, SHORT))
        due = int((await world.job("a")).record["not_before"])
        assert before + SHORT <= due <= await world.store.now() + SHORT
        await world.until(due)
        assert [j.attempt for j in await world.claim()] == [2]

    async def test_nothing_starts_after_its_last_moment(self, world: World) -> None:
        await world.create("late", worker_job(not_after="1", priority="5"))
        await world.create("good", worker_job())
        assert [j.job_id for j in await world.claim(most=5)] == ["good"]
        assert (await world.job("late")).status.value == "pending"
        job = await world.made("late", plans.plan_expire(world.op(), **FAILURE))
        assert (job.status.value, job.started_at) == ("failed", None)

    async def test_a_late_job_hides_none_behind_it(self, world: World) -> None:
        for number in range(5):
            await world.create(f"late{number}", worker_job(not_after="1", priority="5"))
        for number in range(3):
            await world.create(f"good{number}", worker_job())
        assert [j.job_id for j in await world.claim(most=3)] == ["good0", "good1", "good2"]

    async def test_a_claim_gives_no_more_than_it_brings_starts_for(self, world: World) -> None:
        for number in range(5):
            await world.create(f"a{number}", worker_job())
        assert await world.claim(most=0) == []
        assert len(await world.claim(most=2)) == 2
        assert len(await world.claim(most=9)) == 3


class Waking(Scenarios):
    """What wakes an idle worker: signals, not clocks. The time limits are hang guards."""

    async def test_a_submit_wakes(self, world: World) -> None:
        await _idle_is_woken_by(world, Write("a", plans.plan_create(worker_job(), world.op())))

    async def test_a_job_given_back_wakes(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of((await world.claim())[0])
        await _drain(world)
        await _idle_is_woken_by(world, Write("a", plans.plan_release(world.op(), token, {})))

    async def test_the_cancel_of_its_run_wakes_a_worker(self, world: World) -> None:
        await world.create("a", worker_job())
        await world.claim(worker="w1")
        await _drain(world)
        await _idle_is_woken_by(world, Write("a", plans.plan_cancel(world.op())))

    async def test_the_end_of_a_stop_wakes_for_what_it_kept_waiting(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of((await world.claim())[0])
        await world.do("a", plans.plan_cancel(world.op()))
        await world.do("a", plans.plan_retry(world.op()))
        await _drain(world)
        await _idle_is_woken_by(world, Write("a", plans.plan_receipt(world.op(), token, "killed", confirmed=True)))

    async def test_a_freed_slot_wakes_for_the_next_of_its_queue(self, world: World) -> None:
        await world.create("a", worker_job())
        await world.create("b", worker_job())
        token = token_of((await world.claim({"q": 1}))[0])
        await _drain(world)
        await _idle_is_woken_by(world, Write("a", plans.plan_complete(world.op(), token, None, {})))

    async def test_a_nudge_wakes_that_worker(self, world: World) -> None:
        await _drain(world)
        await world.store.nudge("w1")
        assert await world.store.idle("w1", ["q"], 20.0)

    async def test_time_passes_when_nothing_happens(self, world: World) -> None:
        await _drain(world)
        assert await world.store.idle("w1", ["q"], 0.02) is False

    async def test_a_job_of_another_queue_may_be_left_to_others(self, world: World) -> None:
        await world.create("a", worker_job("q2"))
        assert await world.store.idle("w2", ["q2"], 20.0)


def _aged(world: World, created: str) -> Change:
    from milepost.testing.conformance.language import made

    return made(world.op(), created=created, **{k: v for k, v in worker_job().items() if k != "type"})


async def _drain(world: World) -> None:
    """Let everything that could wake the worker be over."""
    for _ in range(20):
        if not await world.store.idle("w1", ["q"], 0.0):
            return


async def _idle_is_woken_by(world: World, write: Write) -> None:
    """`idle` begun before a change comes back because of it."""
    if world.store.blocking:
        thread = threading.Thread(target=_apply_on_a_thread, args=(world.store, write))
        thread.start()
        try:
            assert await world.store.idle("w1", ["q"], 20.0)
        finally:
            thread.join()
        return
    waiting = asyncio.create_task(world.store.idle("w1", ["q"], 20.0))
    await asyncio.sleep(0)
    assert (await world.store.apply([write])).outcomes[0].accepted
    assert await waiting


def _apply_on_a_thread(store: Store, write: Write) -> None:
    other = store.twin(blocking=True)
    drive(other.apply([write]))
    if other is not store:
        drive(other.close())
