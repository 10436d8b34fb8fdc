"""Rollups of ended jobs: each end is counted once, in the step that ends the job, whatever is repeated or removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from milepost.core import transitions as plans
from milepost.core.rollups import HOUR, MINUTE, Rollup, bucket_of, seconds_of
from milepost.core.serialization import US
from milepost.query.statistics import wait
from milepost.stores.protocol import Store, Write
from milepost.stores.retention import purge_older
from milepost.testing.conformance.concurrency import at_once
from milepost.testing.conformance.harness import (
    Scenarios,
    StoreFixture,
    caller_job,
    create_record,
    token_of,
    track_job,
    worker_job,
)

SECOND = 1_000_000


async def ends(fixture: StoreFixture, *, hourly: bool = False, since: int = 0) -> Counter[tuple[str, str]]:
    """Return the number of ends by type and status."""
    found: Counter[tuple[str, str]] = Counter()
    for rollup in (await fixture.store.rollups(since, hourly=hourly)).rollups:
        for status, count in rollup.ended.items():
            found[rollup.job_type, status] += count
    return found


async def past_end(fixture: StoreFixture, job_id: str, ago: int, *, waited: int = SECOND, ran: int = SECOND) -> int:
    """Create a job that ended `ago` microseconds ago, and return when it ended."""
    at = await fixture.store.now() - ago
    times = {"completed": at, "started": at - ran, "created": at - ran - waited}
    fields = {name: str(value) for name, value in times.items()}
    await fixture.do(job_id, create_record(fixture.operation_id(), "completed", type="t", **fields))
    return at


class EndedJobs(Scenarios):
    """Counts of ends, by minute and hour."""

    async def test_every_way_to_end_is_counted_by_type_and_status(self, fixture: StoreFixture) -> None:
        await fixture.create("done", worker_job())
        token = token_of(await fixture.start("done"))
        await fixture.do("done", plans.plan_complete(fixture.operation_id(), token, "1", {}))
        await fixture.create("bad", worker_job(attempts=1, type="other"))
        token = token_of(await fixture.start("bad"))
        fails = {"error": "e", "failure": "{}", "report": {}, "delay": 0}
        await fixture.do("bad", plans.plan_fail(fixture.operation_id(), token, **fails))  # type: ignore[arg-type]
        await fixture.create("stopped", caller_job())
        await fixture.do("stopped", plans.plan_cancel(fixture.operation_id()))
        await fixture.create("open", worker_job())
        expected = {("t", "completed"): 1, ("other", "failed"): 1, ("t", "cancelled"): 1}
        for hourly in (False, True):
            assert await ends(fixture, hourly=hourly) == expected

    async def test_attempt_that_is_tried_again_is_no_end(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(attempts=2))
        token = token_of(await fixture.start("a"))
        fails = {"error": "e", "failure": "{}", "report": {}, "delay": 0}
        await fixture.do("a", plans.plan_fail(fixture.operation_id(), token, **fails))  # type: ignore[arg-type]
        assert await ends(fixture) == {}

    async def test_repeated_and_refused_ends_count_nothing(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        change = plans.plan_complete(fixture.operation_id(), token, "1", {})
        for _ in range(3):
            await fixture.store.apply([Write("a", change), Write("a", change)])
        await fixture.refused("a", plans.plan_complete(fixture.operation_id(), token, "2", {}))
        assert await ends(fixture) == {("t", "completed"): 1}

    async def test_end_after_a_manual_retry_is_another_end(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        for _ in range(2):
            await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
            await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        assert await ends(fixture) == {("t", "cancelled"): 2}

    @pytest.mark.parametrize("how", ["delete", "purge"])
    async def test_end_outlasts_its_record(self, fixture: StoreFixture, how: str) -> None:
        await fixture.create("a", caller_job())
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        if how == "delete":
            await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        else:
            await fixture.tick()
            assert await purge_older(fixture.store, ttl=0) == 1
        assert await ends(fixture) == {("t", "cancelled"): 1}

    async def test_run_and_wait_times_are_near(self, fixture: StoreFixture) -> None:
        for number, seconds in enumerate((0.001, 0.5, 3.0, 600.0, 86_400.0)):
            micros = int(seconds * SECOND)
            await past_end(fixture, f"j{number}", 0, waited=micros * 2, ran=micros)
            found = (await fixture.store.rollups(0)).rollups
            ran, waited = Counter[int](), Counter[int]()
            for rollup in found:
                ran.update(rollup.ran["completed"])
                waited.update(rollup.waited)
            assert (ran[bucket_of(micros)], waited[bucket_of(micros * 2)]) == (1, 1)
            assert abs(seconds_of(bucket_of(micros)) / seconds - 1) < 0.1

    @pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
    async def test_wait_begins_when_the_job_may_start(self, fixture: StoreFixture, end: str) -> None:
        """The wait of a completed job with a delay began at its submit: its record did not keep the earliest start."""
        due = await fixture.store.now() + 50_000
        await fixture.create("a", worker_job(attempts=1, not_before=str(due)))
        await fixture.until(due)
        token = token_of(await fixture.start("a"))
        await fixture.do("a", {
            "completed": plans.plan_complete(fixture.operation_id(), token, "1", {}),
            "failed": plans.plan_fail(fixture.operation_id(), token, error="e", failure="{}", report={}, delay=0),
            "cancelled": plans.plan_cancel(fixture.operation_id()),
        }[end])  # fmt: skip
        (rollup,) = (await fixture.store.rollups(0)).rollups
        (bucket,) = rollup.waited
        job = await fixture.job("a")
        waited = int(job.record["started"]) - due
        assert wait(job) == waited / SECOND
        assert bucket == bucket_of(waited)

    @pytest.mark.parametrize("earlier", ["lost", "retried", "postponed", "given back"])
    async def test_time_of_earlier_runs_is_no_wait(self, fixture: StoreFixture, earlier: str) -> None:
        """The earlier runs of a job that was lost, tried again or given back were shown as time in the queue. One that was only
        given back waits until its last run, without those runs: a worker may give a job back before its code has begun.
        """
        created = await fixture.store.now() - 600 * SECOND
        first, last = created + 10 * SECOND, created + 590 * SECOND
        runs = US.join([str(first), str(first + 400 * SECOND), "1", "worker", ""])
        times = {"created": created, "started": last, "completed": last + SECOND}
        changed, waited = {
            "lost": ({"crashes": 1}, 10),
            "retried": ({"attempt": 2}, 10),
            "postponed": ({"attempt": 2, "not_before": created + 500 * SECOND}, 90),
            "given back": ({"attempt": 1}, 190),
        }[earlier]
        fields = {name: str(value) for name, value in (times | changed).items()}
        await fixture.do("a", create_record(fixture.operation_id(), "completed", type="t", runs=runs, **fields))
        (rollup,) = (await fixture.store.rollups(0)).rollups
        assert rollup.waited == {bucket_of(waited * SECOND): 1}
        assert wait(await fixture.job("a")) == waited

    async def test_job_that_never_started_has_no_times(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        (rollup,) = (await fixture.store.rollups(0)).rollups
        assert (rollup.job_type, rollup.queue, rollup.ended) == ("t", "t", {"cancelled": 1})
        assert (rollup.ran, rollup.waited) == ({}, {})

    async def test_sweep_closes_minutes_and_changes_no_count(self, fixture: StoreFixture) -> None:
        agos = [0, 3, 90, 91, 500, 4000, 4001, 50_000]
        for number, ago in enumerate(agos):
            await past_end(fixture, f"j{number}", ago * SECOND)
        before = [await fixture.store.rollups(0, hourly=hourly) for hourly in (False, True)]
        for number in range(3):
            await fixture.store.sweep(lease=HOUR / SECOND, interval=0)
            after = [await fixture.store.rollups(0, hourly=hourly) for hourly in (False, True)]
            for one, other in zip(before, after, strict=True):
                assert one.rollups == other.rollups
            await past_end(fixture, f"late{number}", 500 * SECOND)
            before = [await fixture.store.rollups(0, hourly=hourly) for hourly in (False, True)]
        for hourly, width in ((False, MINUTE), (True, HOUR)):
            found = (await fixture.store.rollups(0, hourly=hourly)).rollups
            assert sum(rollup.ended["completed"] for rollup in found) == len(agos) + 3
            assert all(rollup.at % width == 0 for rollup in found)
            assert [rollup.at for rollup in found] == sorted(rollup.at for rollup in found)

    async def test_only_what_was_asked_for_is_read(self, fixture: StoreFixture) -> None:
        at = await past_end(fixture, "old", 3 * HOUR)
        await past_end(fixture, "new", 0)
        for _ in range(2):
            assert (await fixture.store.rollups(at)).rollups[0].at == at // MINUTE * MINUTE
            assert await ends(fixture, since=at + 2 * HOUR) == {("t", "completed"): 1}
            assert await ends(fixture, since=at + 2 * HOUR, hourly=True) == {("t", "completed"): 1}
            await fixture.store.sweep(lease=HOUR / SECOND, interval=0)

    async def test_minutes_are_kept_for_two_days_and_hours_for_sixty(self, fixture: StoreFixture) -> None:
        for name, hours in (("a", 47), ("b", 49), ("c", 59 * 24), ("d", 61 * 24)):
            await past_end(fixture, name, hours * HOUR)
        await fixture.store.sweep(lease=HOUR / SECOND, interval=0)
        assert await ends(fixture) == {("t", "completed"): 1}
        assert await ends(fixture, hourly=True) == {("t", "completed"): 3}
        now = await fixture.store.now()
        for hourly, kept in ((False, 48 * HOUR), (True, 60 * 24 * HOUR)):
            since = (await fixture.store.rollups(0, hourly=hourly)).complete_since
            assert now - kept <= since <= now - kept + 2 * HOUR

    async def test_odd_names_are_kept_apart(self, fixture: StoreFixture) -> None:
        names = ["a", "a.r1", "w1", "a:b/c", "completed"]
        for name in names:
            await fixture.create(name, caller_job(type=name))
            await fixture.do(name, plans.plan_cancel(fixture.operation_id()))
        assert await ends(fixture) == {(name, "cancelled"): 1 for name in names}

    async def test_queues_are_counted_apart(self, fixture: StoreFixture) -> None:
        for queue in ("fast", "slow", "t"):
            await fixture.create(queue, {**caller_job(), "queue": queue})
            await fixture.do(queue, plans.plan_cancel(fixture.operation_id()))
        found = (await fixture.store.rollups(0)).rollups
        assert sorted((r.job_type, r.queue) for r in found) == [("t", "fast"), ("t", "slow"), ("t", "t")]

    async def test_concurrent_ends_are_all_counted(self, fixture: StoreFixture) -> None:
        writes = [Write(f"j{n:02d}", plans.plan_track(track_job(), fixture.operation_id(), nonce="n", lease=HOUR)) for n in range(30)]  # fmt: skip
        tokens = {job.job_id: token_of(job) for o in (await fixture.store.apply(writes)).outcomes if (job := o.job)}

        def finish(ids: list[str]) -> Callable[[Store], Coroutine[Any, Any, int]]:
            plan = [
                Write(i, plans.plan_complete(fixture.operation_id(), tokens[i], "1", {}), answer=False) for i in ids
            ]

            async def work(store: Store) -> int:
                accepted = 0
                for write in plan:
                    outcome = (await store.apply([write])).outcomes[0]
                    accepted += outcome.accepted
                    found = (await store.rollups(0)).rollups
                    ended = (await store.counts()).get(("t", "completed"), 0)
                    assert sum(map(_completed, found)) <= ended, "a rollup is never ahead of the records"
                return accepted

            return work

        ids = sorted(tokens)
        answers = await at_once(fixture, finish(ids[:20]), finish(ids[10:]), finish(ids[5:25]))
        assert sum(answers) == len(ids)
        assert await ends(fixture) == {("t", "completed"): len(ids)}


def _completed(rollup: Rollup) -> int:
    return rollup.ended.get("completed", 0)
