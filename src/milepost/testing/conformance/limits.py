"""Limits by limit key and partition, and the turns that partitions take."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import pytest

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.limits import KEEP, Limit, ready_name, slot_name
from milepost.core.serialization import US
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import Write
from milepost.testing.conformance.harness import Scenarios, StoreFixture, token_of, worker_job


def limited_job(partition: str | None = None, *, key: str = "t", queue: str = "t", **fields: str) -> dict[str, str]:
    """Return the fields of a worker job of type ``t`` with a limit key and a partition."""
    slot = slot_name(key, partition)
    ready = ready_name("t", queue, slot)
    pairs = [f":{name}={value}" for name, value in (("limit_key", key), ("partition", partition)) if value]
    return {**worker_job(ready, slot=slot, ready_name=ready, labels="\x1f".join(pairs)), **fields}


class Limits(Scenarios):
    """What limits count, and in which order jobs start under them."""

    async def test_running_limit_counts_all_partitions(self, fixture: StoreFixture) -> None:
        for name in ("a1", "a2", "b1", "b2"):
            await fixture.create(name, limited_job(name[0]))
        await fixture.create("c", worker_job("t"))
        await fixture.store.set_limit("t", 3, False)
        assert len(await fixture.claim(["t"], 5)) == 3
        assert await fixture.claim(["t"]) == []
        await fixture.store.set_limit("t", 4, False)
        assert len(await fixture.claim(["t"], 5)) == 1

    async def test_partition_limit_holds_for_each_partition(self, fixture: StoreFixture) -> None:
        for name in ("a1", "a2", "a3", "b1"):
            await fixture.create(name, limited_job(name[0]))
        await fixture.store.set_limit("t", None, False, 2)
        assert (await fixture.store.limits())["t"] == Limit(None, False, 2)
        claimed = await fixture.claim(["t"], 9)
        assert sorted(job.job_id for job in claimed) == ["a1", "a2", "b1"]
        assert await fixture.claim(["t"]) == []
        ended = next(job for job in claimed if job.job_id == "a1")
        await fixture.do("a1", plans.plan_complete(fixture.operation_id(), token_of(ended), None, {}))
        assert [job.job_id for job in await fixture.claim(["t"], 9)] == ["a3"]

    async def test_parts_of_a_setting_are_set_by_themselves(self, fixture: StoreFixture) -> None:
        store = fixture.store
        await store.set_limit("t", KEEP, True, KEEP)
        assert await store.limits() == {"t": Limit(None, True, None)}
        await store.set_limit("t", 3, KEEP, 2)
        await store.set_limit("other", KEEP, KEEP, 5)
        assert await store.limits() == {"t": Limit(3, True, 2), "other": Limit(None, False, 5)}
        await store.set_limit("t", 0, False, KEEP)
        assert (await store.limits())["t"] == Limit(0, False, 2)
        await store.set_limit("t", KEEP, KEEP, None)
        await store.set_limit("other", KEEP, KEEP, None)
        assert await store.limits() == {"t": Limit(0, False, None)}
        await store.set_limit("t", None, KEEP, KEEP)
        await store.set_limit("t", KEEP, KEEP, KEEP)
        assert await store.limits() == {}

    async def test_limit_key_is_shared_by_queues(self, fixture: StoreFixture) -> None:
        await fixture.create("a", limited_job(key="api"))
        await fixture.create("b", limited_job(key="api", queue="gpu"))
        await fixture.create("c", worker_job("t"))
        await fixture.store.set_limit("api", 1, False)
        assert [job.job_id for job in await fixture.claim(["t@gpu"], 2)] == ["b"]
        assert [job.job_id for job in await fixture.claim(["t"], 2)] == ["c"]
        await fixture.store.set_limit("api", 0, False)
        await fixture.do("b", plans.plan_cancel(fixture.operation_id()))
        assert await fixture.claim(["t", "t@gpu"], 2) == []

    async def test_stopping_run_keeps_its_place_under_a_limit(self, fixture: StoreFixture) -> None:
        await fixture.create("a", limited_job("x"))
        await fixture.create("b", limited_job("x"))
        await fixture.store.set_limit("t", None, False, 1)
        (job,) = await fixture.claim(["t"], 2)
        await fixture.do(job.job_id, plans.plan_cancel(fixture.operation_id()))
        assert await fixture.claim(["t"]) == []
        receipt = plans.plan_receipt(fixture.operation_id(), token_of(job), "cooperative", confirmed=True)
        await fixture.do(job.job_id, receipt)
        assert [one.job_id for one in await fixture.claim(["t"])] == ["b"]

    async def test_partitions_take_turns(self, fixture: StoreFixture) -> None:
        for number in range(4):
            await fixture.create(f"a{number}", limited_job("a"))
        for name in ("b0", "b1", "c0"):
            await fixture.create(name, limited_job(name[0]))
        await fixture.create("d", worker_job("t"))
        claimed = [(await fixture.claim(["t"]))[0].job_id for _ in range(4)]
        claimed += [job.job_id for job in await fixture.claim(["t"], 9)]
        assert claimed == ["d", "a0", "b0", "c0", "a1", "b1", "a2", "a3"]

    async def test_partition_that_comes_back_keeps_its_turn(self, fixture: StoreFixture) -> None:
        await fixture.create("a0", limited_job("a"))
        await fixture.create("b0", limited_job("b"))
        for number, name in enumerate(("a0", "b0", "a1", "b1")):
            (job,) = await fixture.claim(["t"])
            assert job.job_id == name
            await fixture.create(f"{name[0]}{number // 2 + 1}", limited_job(name[0]))

    async def test_higher_priority_goes_before_turns(self, fixture: StoreFixture) -> None:
        await fixture.create("a0", limited_job("a"))
        for name in ("b0", "b1"):
            await fixture.create(name, limited_job("b", priority="5"))
        await fixture.create("a1", limited_job("a", priority="9"))
        assert [job.job_id for job in await fixture.claim(["t"], 4)] == ["a1", "b0", "b1", "a0"]
        await fixture.create("d", limited_job("a"))
        await fixture.create("e", limited_job("z", priority="1"))
        await fixture.create("f", worker_job("t", priority="2"))
        await fixture.create("g", worker_job("t"))
        claimed = [(await fixture.claim(["t"]))[0].job_id for _ in range(2)]
        assert claimed == ["f", "e"]

    async def test_removed_jobs_leave_no_priority_to_their_partitions(self, fixture: StoreFixture) -> None:
        high = [f"high{number}" for number in range(20)]
        for name in high:
            await fixture.create(name, limited_job(name, priority="9"))
            await fixture.create(f"{name}-low", limited_job(name))
        await fixture.create("first", limited_job("z", priority="10"))
        await fixture.create("middle", limited_job("z", priority="5"))
        await fixture.create("unpartitioned", worker_job("t", priority="3"))
        assert [job.job_id for job in await fixture.claim(["t"])] == ["first"]
        for name in high:
            await fixture.do(name, plans.plan_cancel(fixture.operation_id()))
        claimed = [(await fixture.claim(["t"]))[0].job_id for _ in range(3)]
        assert claimed == ["middle", "unpartitioned", "high0-low"]

    async def test_returned_and_delayed_jobs_stay_in_their_partition(self, fixture: StoreFixture) -> None:
        now = await fixture.store.now()
        await fixture.create("a", limited_job("a", not_before=str(now + 200_000)))
        await fixture.create("b", limited_job("a"))
        await fixture.store.set_limit("t", None, False, 1)
        await fixture.until(now + 200_000)
        (job,) = await fixture.claim(["t"], 2)
        await fixture.do("a", plans.plan_release(fixture.operation_id(), token_of(job), {}))
        assert [one.job_id for one in await fixture.claim(["t"], 2)] == ["a"]
        assert await fixture.claim(["t"], job_id="b") == []
        await fixture.store.set_limit("t", None, False)
        assert [one.job_id for one in await fixture.claim(["t"], job_id="b")] == ["b"]

    async def test_delayed_jobs_count_for_their_limit(self, fixture: StoreFixture) -> None:
        now = await fixture.store.now()
        await fixture.create("x1", limited_job("a", key="api"))
        await fixture.create("x2", limited_job("b", key="api", not_before=str(now + 200_000)))
        await fixture.store.set_limit("t", 0, False)
        await fixture.store.set_limit("api", 1, False)
        await fixture.until(now + 200_000)
        started = [job.job_id for _ in range(3) for job in await fixture.claim(["t"], 2)]
        assert started == ["x1"]
        await fixture.do("x1", plans.plan_cancel(fixture.operation_id()))
        await fixture.store.set_limit("api", 2, False)
        assert [job.job_id for job in await fixture.claim(["t"], 2)] == ["x2"]

    async def test_named_claim_of_delayed_job_keeps_its_limit(self, fixture: StoreFixture) -> None:
        now = await fixture.store.now()
        for name in ("x1", "x2"):
            await fixture.create(name, limited_job("a", key="api", not_before=str(now + 200_000)))
        await fixture.store.set_limit("t", 0, False)
        await fixture.store.set_limit("api", 1, False)
        await fixture.until(now + 200_000)
        started = [job for _ in range(2) for name in ("x1", "x2") for job in await fixture.claim(["t"], job_id=name)]
        assert len(started) == 1

    async def test_partition_whose_jobs_cannot_start_leaves_the_turn(self, fixture: StoreFixture) -> None:
        for number in range(20):
            await fixture.create(f"a{number:02}", limited_job(f"a{number:02}", priority="5"))
        for job in await fixture.claim(["t"], 20):
            # The run still stops, so the job of that name cannot start.
            await fixture.do(job.job_id, plans.plan_cancel(fixture.operation_id()))
            await fixture.do(job.job_id, plans.plan_retry(fixture.operation_id()))
        await fixture.create("b", limited_job("b"))
        assert [job.job_id for job in await fixture.claim(["t"])] == ["b"]

    async def test_ended_lease_wakes_for_its_partition(self, fixture: StoreFixture) -> None:
        for name in ("a", "b"):
            await fixture.create(name, limited_job("x"))
        await fixture.store.set_limit("t", None, False, 1)
        (job,) = await fixture.claim(["t"])
        while await fixture.store.wait_for_work("w1", ["t"], 0.02):
            assert await fixture.claim(["t"]) == []
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token_of(job), None, {}))
        assert await fixture.store.wait_for_work("w1", ["t"], 60.0)

    async def test_freed_slot_wakes_workers_of_other_queues(self, fixture: StoreFixture) -> None:
        for name in ("a", "b", "c"):
            await fixture.create(name, limited_job(queue="gpu"))
        await fixture.store.set_limit("t", 1, False)
        (job,) = await fixture.claim(["t@gpu"])

        async def starts_none() -> None:
            while await fixture.store.wait_for_work("w1", ["t@gpu"], 0.02):
                assert await fixture.claim(["t@gpu"]) == []

        await starts_none()
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token_of(job), None, {}))
        assert await fixture.store.wait_for_work("w1", ["t@gpu"], 60.0)
        assert [one.job_id for one in await fixture.claim(["t@gpu"])] == ["b"]
        await starts_none()
        await fixture.store.set_limit("t", 2, False)
        assert await fixture.store.wait_for_work("w1", ["t@gpu"], 60.0)
        assert [one.job_id for one in await fixture.claim(["t@gpu"])] == ["c"]

    async def test_full_partitions_leave_the_turn_to_others(self, fixture: StoreFixture) -> None:
        await fixture.store.set_limit("t", None, False, 1)
        for number in range(200):
            await fixture.create(f"a{number:03}", limited_job(f"p{number:03}"))
        assert len(await fixture.claim(["t"], 200)) == 200
        for number in range(200):
            await fixture.create(f"b{number:03}", limited_job(f"p{number:03}"))
        await fixture.create("z", limited_job("z"))
        claimed: list[str] = []
        while await fixture.store.wait_for_work("w1", ["t"], 0.02):
            claimed += [job.job_id for job in await fixture.claim(["t"])]
        assert claimed == ["z"]
        job = await fixture.job("a150")
        await fixture.do("a150", plans.plan_complete(fixture.operation_id(), token_of(job), None, {}))
        assert [one.job_id for one in await fixture.claim(["t"], 9)] == ["b150"]

    async def test_claim_takes_the_place_of_the_run_that_it_ends(self, fixture: StoreFixture) -> None:
        await fixture.store.set_limit("t", None, False, 1)
        await fixture.create("a1", limited_job("a"))
        (first,) = await fixture.claim(["t"])
        await fixture.create("a2", limited_job("a"))
        assert await fixture.claim(["t"]) == []
        end = Write("a1", plans.plan_complete(fixture.operation_id(), token_of(first), None, {}))
        assert [job.job_id for job in await fixture.claim(["t"], writes=[end])] == ["a2"]

    async def test_claimable_jobs_are_counted_by_limit_key(self, fixture: StoreFixture) -> None:
        now = await fixture.store.now()
        await fixture.create("a", worker_job("t"))
        await fixture.create("b", worker_job("t@gpu", slot="t", ready_name="t@gpu"))
        for name in ("x1", "x2", "y1"):
            await fixture.create(name, limited_job(name[0]))
        await fixture.create("k", limited_job(key="api", queue="gpu"))
        await fixture.create("later", worker_job("t", not_before=str(now + 3_600_000_000)))
        await fixture.create("other", worker_job("other"))
        assert await fixture.store.claimable_jobs() == {}
        await fixture.store.set_limit("t", None, False, 1)
        await fixture.store.close_gate("api", 3_600_000_000)
        assert await fixture.store.claimable_jobs() == {"t": 5, "api": 1}
        claimed = await fixture.claim(["t", "t@gpu"], 9)
        assert sorted(job.job_id for job in claimed) == ["a", "b", "x1", "y1"]
        while await fixture.store.wait_for_work("w1", ["t"], 0.02):
            assert await fixture.claim(["t"]) == []
        assert await fixture.store.claimable_jobs() == {"t": 1, "api": 1}, "those of full partitions are counted"
        await fixture.do("x2", plans.plan_cancel(fixture.operation_id()))
        await fixture.store.close_gate("api", 0)
        assert await fixture.store.claimable_jobs() == {}

    async def test_limits_hold_in_random_histories(self, fixture: StoreFixture) -> None:
        await random_history(fixture, random.Random(20))

    @pytest.mark.parametrize("seed", range(3))
    async def test_turns_hold_in_random_histories(self, fixture: StoreFixture, seed: int) -> None:
        memory = StoreFixture(MemoryStore(blocking=fixture.store.blocking))
        wanted = await claimed_at_random(memory, random.Random(seed))
        assert await claimed_at_random(fixture, random.Random(seed)) == wanted


async def random_history(fixture: StoreFixture, chance: random.Random, steps: int = 200) -> None:
    """Submit, start and end jobs at random under changing limits. Raises AssertionError if a start exceeds one: invariant I33."""
    queues = ["t", "t@gpu"]
    running: dict[str, Job] = {}
    limits: dict[str, tuple[int | None, int | None]] = {}
    for number in range(steps):
        match chance.randrange(8):
            case 0:
                key = chance.choice(["t", "api"])
                limits[key] = (chance.choice([None, 0, 1, 3]), chance.choice([None, 1, 2]))
                await fixture.store.set_limit(key, limits[key][0], False, limits[key][1])
            case 1 | 2 | 3:
                partition, key = chance.choice([None, "a", "b"]), chance.choice(["t", "api"])
                later = {"not_before": str(await fixture.store.now() + 10_000)} if chance.random() < 0.3 else {}
                fields = limited_job(partition, key=key, queue=chance.choice(["t", "gpu"]), **later)
                await fixture.create(f"j{number}", fields)
            case 4 | 5 | 6:
                await fixture.rest(0.002)
                for job in await fixture.claim(queues, chance.randrange(1, 4)):
                    running[job.job_id] = job
                    assert_within(job.record["slot"], Counter(one.record["slot"] for one in running.values()), limits)
            case _ if running:
                ended = running.pop(chance.choice(sorted(running)))
                if chance.random() < 0.5:
                    change = plans.plan_release(fixture.operation_id(), token_of(ended), {})
                else:
                    change = plans.plan_complete(fixture.operation_id(), token_of(ended), None, {})
                await fixture.do(ended.job_id, change)


async def claimed_at_random(fixture: StoreFixture, chance: random.Random, steps: int = 150) -> list[list[str]]:
    """Submit, start, end and cancel jobs of many partitions at random, and return the ids of each claim, in order."""
    claimed, running = list[list[str]](), list[Job]()
    for number in range(steps):
        match chance.randrange(8):
            case 0:
                per_partition, most = chance.choice([None, 1, 2]), chance.choice([None, 0, 3, 9])
                await fixture.store.set_limit(chance.choice(["t", "api"]), most, False, per_partition)
            case 1 | 2 | 3 | 4:
                partition, key = chance.choice([None, *range(12)]), chance.choice(["t", "api"])
                fields = limited_job(
                    None if partition is None else f"p{partition}",
                    key=key,
                    queue=chance.choice(["t", "gpu"]),
                    priority=chance.choice(["0", "0", "3", "-1"]),
                )
                await fixture.create(f"j{number:03}", fields)
            case 5 | 6:
                queues = chance.choice([["t"], ["t@gpu"], ["t", "t@gpu"]])
                jobs = await fixture.claim(queues, chance.randrange(1, 5))
                claimed.append([job.job_id for job in jobs])
                running += jobs
            case _ if running:
                ended = running.pop(chance.randrange(len(running)))
                if chance.random() < 0.3:
                    await fixture.do(ended.job_id, plans.plan_release(fixture.operation_id(), token_of(ended), {}))
                else:
                    change = plans.plan_complete(fixture.operation_id(), token_of(ended), None, {})
                    await fixture.do(ended.job_id, change)
    return claimed


def assert_within(slot: str, leases: Mapping[str, int], limits: Mapping[str, tuple[int | None, int | None]]) -> None:
    """Raise AssertionError if more leases than its limits allow have a slot, after one more was started."""
    key, _, partition = slot.partition(US)
    running, per_partition = limits.get(key, (None, None))
    of_key = sum(count for name, count in leases.items() if name.partition(US)[0] == key)
    assert running is None or of_key <= running, f"{of_key} leases of {key!r}, the limit is {running}"
    if partition and per_partition is not None:
        assert leases[slot] <= per_partition, f"{leases[slot]} leases of {slot!r}, the limit is {per_partition}"
