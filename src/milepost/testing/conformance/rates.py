"""Rates of starts, and gates: times before which no job of a limit key starts."""

from __future__ import annotations

import random
from collections.abc import Sequence

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.limits import KEEP, Limit, Rate
from milepost.testing.conformance.harness import Scenarios, StoreFixture, token_of, worker_job
from milepost.testing.conformance.limits import limited_job

MINUTE = 60_000_000
SLACK = 1_000
"""A store may stamp the starts of one claim some microseconds apart."""


class Rates(Scenarios):
    """When jobs of a limit key start."""

    async def test_rate_spaces_starts(self, fixture: StoreFixture) -> None:
        for name in ("a", "b", "c"):
            await fixture.create(name, worker_job("t"))
        await fixture.store.set_limit("t", None, False, None, Rate(1, 3600))
        answer = await fixture.claiming(["t"], 9)
        assert [job.job_id for job in answer.claimed] == ["a"]
        opens = (await fixture.store.limits())["t"].opens
        assert (await fixture.job("a")).record["started"] <= str(opens - Rate(1, 3600).spacing + SLACK)
        again = await fixture.claiming(["t"], 9)
        assert (again.claimed, answer.next_due, again.next_due) == ([], opens, opens)
        await fixture.store.set_limit("t", None, False, None, Rate(2, 3600))
        assert [job.job_id for job in await fixture.claim(["t"], 9)] == ["b"]
        await fixture.store.set_limit("t", None, False, None, None)
        assert [job.job_id for job in await fixture.claim(["t"], 9)] == ["c"]
        assert await fixture.store.limits() == {}

    async def test_rate_that_is_set_again_is_not_started_afresh(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job("t"))
        await fixture.create("b", worker_job("t"))
        for _ in range(2):
            await fixture.store.set_limit("t", 5, False, None, Rate(1, 3600))
            claimed = await fixture.claim(["t"], 9)
        assert claimed == []
        await fixture.store.set_limit("t", KEEP, True)
        await fixture.store.set_limit("t", 5, False)
        assert (await fixture.store.limits())["t"][:4] == (5, False, None, Rate(1, 3600))
        assert await fixture.claim(["t"], 9) == []

    async def test_unused_rate_allows_a_burst_of_50_ms(self, fixture: StoreFixture) -> None:
        for number in range(12):
            await fixture.create(f"a{number:02}", worker_job("t"))
        await fixture.store.set_limit("t", None, False, None, Rate(200, 1))
        assert len(await fixture.claim(["t"], 12)) == 10

    async def test_rate_counts_all_partitions_and_queues(self, fixture: StoreFixture) -> None:
        for name in ("a1", "a2", "b1", "b2"):
            await fixture.create(name, limited_job(name[0], key="api"))
        await fixture.create("g", limited_job(key="api", queue="gpu"))
        await fixture.create("z", worker_job("t"))
        await fixture.store.set_limit("api", None, False, 1, Rate(60, 1))
        claimed = await fixture.claim(["t"], 9)
        assert sorted(job.job_id for job in claimed) == ["a1", "b1", "z"]
        await fixture.store.set_limit("api", None, False, None, Rate(1, 3600))
        assert [job.job_id for job in await fixture.claim(["t@gpu"], 9)] == ["g"]
        answer = await fixture.claiming(["t"], 9)
        assert (answer.claimed, answer.next_due) == ([], (await fixture.store.limits())["api"].opens)

    async def test_named_claim_takes_a_start_of_the_rate(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job("t"))
        await fixture.create("b", worker_job("t"))
        await fixture.store.set_limit("t", None, False, None, Rate(1, 3600))
        assert [job.job_id for job in await fixture.claim(["t"], job_id="b")] == ["b"]
        assert await fixture.claim(["t"], job_id="a") == []

    async def test_closed_gate_lets_no_job_of_its_key_start(self, fixture: StoreFixture) -> None:
        for name in ("a", "b"):
            await fixture.create(name, worker_job("t"))
        await fixture.create("c", limited_job("acme", key="api"))
        await fixture.create("d", worker_job("other"))
        now = await fixture.store.now()
        await fixture.store.close_gate("t", 10 * MINUTE)
        await fixture.store.close_gate("api", 20 * MINUTE)
        await fixture.store.close_gate("t", MINUTE)
        gates = {key: limit.gate for key, limit in (await fixture.store.limits()).items()}
        assert now + 10 * MINUTE <= gates["t"] < now + 11 * MINUTE
        answer = await fixture.claiming(["t", "other"], 9)
        assert [job.job_id for job in answer.claimed] == ["d"]
        assert answer.next_due == gates["t"]
        await fixture.store.close_gate("t", 0)
        assert [job.job_id for job in await fixture.claim(["t"], 9)] == ["a", "b"]
        assert (await fixture.claiming(["t"], 9)).next_due == gates["api"]
        await fixture.store.close_gate("api", 0)
        assert [job.job_id for job in await fixture.claim(["t"], 9)] == ["c"]
        assert await fixture.store.limits() == {}

    async def test_gate_opens_at_its_time(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job("t"))
        await fixture.store.close_gate("t", 500_000)
        answer = await fixture.claiming(["t"])
        assert answer.claimed == []
        assert answer.next_due is not None
        await fixture.until(answer.next_due)
        assert [job.job_id for job in await fixture.claim(["t"])] == ["a"]

    async def test_gate_and_limit_of_a_key_keep_each_other(self, fixture: StoreFixture) -> None:
        await fixture.store.set_limit("t", 2, False, None, Rate(5, 1))
        await fixture.store.close_gate("t", MINUTE)
        gate = (await fixture.store.limits())["t"].gate
        await fixture.store.set_limit("t", 3, KEEP, KEEP)
        assert await fixture.store.limits() == {"t": Limit(3, False, None, Rate(5, 1), gate)}
        await fixture.store.close_gate("t", 0)
        assert await fixture.store.limits() == {"t": Limit(3, False, None, Rate(5, 1))}

    async def test_snooze_closes_a_gate_in_the_same_step(self, fixture: StoreFixture) -> None:
        for name in ("a", "b"):
            await fixture.create(name, limited_job(key="api"))
        (job,) = await fixture.claim(["t"])
        release = plans.plan_release(fixture.operation_id(), token_of(job), {}, delay=MINUTE, gate="api")
        await fixture.do("a", release)
        await fixture.do("a", release)
        snoozed, gate = await fixture.job("a"), (await fixture.store.limits()).get("api", Limit()).gate
        assert abs(int(snoozed.record["not_before"]) - gate) <= SLACK
        assert (await fixture.claim(["t"], 9), snoozed.attempt) == ([], 0)
        await fixture.store.close_gate("api", 0)
        assert [one.job_id for one in await fixture.claim(["t"], 9)] == ["b"]

    async def test_release_gives_a_start_back_and_closes_a_gate(self, fixture: StoreFixture) -> None:
        await fixture.create("a", limited_job(key="api"))
        await fixture.store.set_limit("api", None, False, None, Rate(1, 3600))
        (job,) = await fixture.claim(["t"])
        before = (await fixture.store.limits())["api"]
        release = plans.plan_release(
            fixture.operation_id(), token_of(job), {}, delay=MINUTE, gate="api", start=_start_of(job)
        )
        await fixture.do("a", release)
        after = (await fixture.store.limits())["api"]
        assert (after.opens, after.gate > 0) == (before.opens - Rate(1, 3600).spacing, True)

    async def test_start_without_code_is_given_back_to_the_rate(self, fixture: StoreFixture) -> None:
        for name in ("a", "b", "c", "d"):
            await fixture.create(name, limited_job("acme", key="api"))
        await fixture.store.set_limit("api", None, False, None, Rate(1, 3600))
        started = [(await fixture.claim(["t"], 9))[0]]
        opens = (await fixture.store.limits())["api"].opens
        fail = plans.plan_fail(
            fixture.operation_id(), token_of(started[0]), error="no", failure="", report={}, start=_start_of(started[0])
        )
        await fixture.do("a", fail)
        await fixture.do("a", fail)
        assert (await fixture.store.limits())["api"].opens == opens - Rate(1, 3600).spacing
        started += await fixture.claim(["t"], 9)
        release = plans.plan_release(
            fixture.operation_id(), token_of(started[1]), {}, delay=MINUTE, start=_start_of(started[1])
        )
        await fixture.do("b", release)
        started += await fixture.claim(["t"], 9)
        assert [job.job_id for job in started] == ["a", "b", "c"]
        assert await fixture.claim(["t"], 9) == []

    async def test_old_start_without_code_is_lost_to_the_rate(self, fixture: StoreFixture) -> None:
        for name in ("a", "b"):
            await fixture.create(name, worker_job("t"))
        await fixture.store.set_limit("t", None, False, None, Rate(1, 3600))
        (job,) = await fixture.claim(["t"], 9)
        old = str(int(_start_of(job)) - 2 * 3600 * 1_000_000)
        fail = plans.plan_fail(fixture.operation_id(), token_of(job), error="no", failure="", report={}, start=old)
        await fixture.do("a", fail)
        assert await fixture.claim(["t"], 9) == []

    async def test_rates_hold_in_random_histories(self, fixture: StoreFixture) -> None:
        await random_starts(fixture, random.Random(16))


def _start_of(job: Job) -> str:
    return job.record["updated"]


async def random_starts(fixture: StoreFixture, chance: random.Random, steps: int = 60) -> None:
    """Start jobs at random moments under a rate and gates. Raises AssertionError if too many start, or none."""
    rate, starts = Rate(100, 1), list[int]()
    await fixture.store.set_limit("api", None, False, None, rate)
    closed_from, gate = 0, 0
    for number in range(steps):
        for place in range(3):
            await fixture.create(f"j{number}-{place}", limited_job(chance.choice([None, "a", "b"]), key="api"))
        if chance.random() < 0.1:
            closed_from = await fixture.store.now()
            await fixture.store.close_gate("api", 10_000)
            gate = (await fixture.store.limits())["api"].gate
        await fixture.rest(chance.choice([0.001, 0.002, 0.008]))
        for job in await fixture.claim(["t"], chance.randrange(1, 20)):
            at = int(job.record["started"])
            assert not closed_from <= at < gate - SLACK, "a job was started while its gate was closed"
            if chance.random() < 0.2:
                release = plans.plan_release(
                    fixture.operation_id(), token_of(job), {}, delay=MINUTE, start=_start_of(job)
                )
                await fixture.do(job.job_id, release)
            else:
                starts.append(at)
    assert_within_rate(sorted(starts), rate)
    assert len(starts) > 5


def assert_within_rate(starts: Sequence[int], rate: Rate) -> None:
    """Raise AssertionError if more jobs started in any period than the rate and its burst allow."""
    burst = rate.tolerance // rate.spacing + 1
    for first, at in enumerate(starts):
        for last in range(first + burst, len(starts)):
            least = (last - first + 1 - burst) * rate.spacing
            assert starts[last] - at >= least - SLACK, f"{last - first + 1} starts within {starts[last] - at} us"
