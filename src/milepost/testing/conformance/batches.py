"""Batches of jobs."""

from __future__ import annotations

import pytest

from milepost.core import transitions as plans
from milepost.core.job import JobStatus
from milepost.stores.protocol import Write
from milepost.stores.retention import purge_older
from milepost.testing.conformance.groups import complete, dying, fail, is_cancelled, is_held, is_ready
from milepost.testing.conformance.harness import Scenarios, StoreFixture, caller_job, token_of, worker_job


def batch(name: str = "g") -> dict[str, str]:
    """Return the fields of the record of a batch."""
    return {**caller_job(labels=f":group={name}"), "type": "batch"}


class BatchRecords(Scenarios):
    """The records of batches, which are open members of their own groups until they are closed."""

    @staticmethod
    async def _open(fixture: StoreFixture) -> None:
        await fixture.create("g", batch())
        await fixture.do("g", plans.plan_open_batch(fixture.operation_id()))

    @staticmethod
    async def _close(fixture: StoreFixture) -> None:
        close = plans.plan_close_batch(fixture.operation_id(), "group:g", "closed")
        assert (await fixture.store.apply([Write("g", close)])).outcomes[0].accepted

    async def test_batch_ends_when_it_is_closed_and_no_member_is_open(self, fixture: StoreFixture) -> None:
        await BatchRecords._open(fixture)
        await fixture.create("a", worker_job(labels=":group=g"))
        await fixture.create("then", worker_job(labels=":after=group:g"))
        await complete(fixture, "a")
        await is_held(fixture, "then", "group:g")
        await fixture.create("b", worker_job(labels=":group=g"))
        await BatchRecords._close(fixture)
        await is_held(fixture, "then", "group:g")
        assert (await fixture.job("g")).status is JobStatus.RUNNING
        assert await fixture.store.member_counts(["group:g"]) == [{"": 1, "completed": 1, "closed": 1}]
        await complete(fixture, "b")
        job = await fixture.job("g")
        assert (job.status.value, job.progress, "held" in job.record) == ("completed", 1.0, False)
        assert await fixture.store.member_counts(["group:g"]) == [{"completed": 2, "closed": 1}]
        await is_ready(fixture, "then")

    async def test_empty_batch_ends_at_once(self, fixture: StoreFixture) -> None:
        await BatchRecords._open(fixture)
        await fixture.create("then", worker_job(labels=":after=group:g"))
        await is_held(fixture, "then", "group:g")
        await BatchRecords._close(fixture)
        assert (await fixture.job("g")).status is JobStatus.COMPLETED
        await is_ready(fixture, "then")
        await fixture.create("later", worker_job(labels=":after=group:g"))
        await is_ready(fixture, "later")

    async def test_batch_with_a_failed_member_fails(self, fixture: StoreFixture) -> None:
        await BatchRecords._open(fixture)
        await fixture.create("a", worker_job(labels=":group=g"))
        await fixture.create("then", worker_job(labels=":after=group:g"))
        await BatchRecords._close(fixture)
        await fail(fixture, "a")
        job = await fixture.job("g")
        assert (job.status.value, job.error) == ("failed", "t failed: no (job a)")
        await is_cancelled(fixture, "then", "a")

    @pytest.mark.parametrize("removal", ["delete", "purge"])
    async def test_batch_with_a_removed_failed_member_fails(self, fixture: StoreFixture, removal: str) -> None:
        await BatchRecords._open(fixture)
        for name in "ab":
            await fixture.create(name, worker_job(labels=":group=g"))
        await fail(fixture, "a")
        if removal == "purge":
            await fixture.tick()
            assert await purge_older(fixture.store, ttl=0) == 0  # the batch is open
        else:
            await fixture.store.apply([Write("a", plans.plan_delete(fixture.operation_id()))])
        await fixture.create("then", worker_job(labels=":after=group:g"))
        await fixture.store.apply([Write("then", plans.plan_delete(fixture.operation_id()))])
        await BatchRecords._close(fixture)
        await complete(fixture, "b")
        job = await fixture.job("g")
        assert (job.status.value, job.error) == (
            "failed",
            "t failed: no (job a)" if removal == "purge" else "job a was deleted",
        )
        for name in "gab":
            await fixture.store.apply([Write(name, plans.plan_delete(fixture.operation_id()))])
        await BatchRecords._open(fixture)  # another batch of that name
        await BatchRecords._close(fixture)
        assert (await fixture.job("g")).status is JobStatus.COMPLETED

    async def test_failed_batch_cancels_what_follows_it(self, fixture: StoreFixture) -> None:
        await BatchRecords._open(fixture)
        await fixture.create("then", worker_job(labels=":after=group:g"))
        await fixture.do("g", plans.plan_update(fixture.operation_id(), "failed", error="no"))
        await is_cancelled(fixture, "then", "g")

    async def test_closed_batch_refuses_members_except_from_a_running_member(self, fixture: StoreFixture) -> None:
        await BatchRecords._open(fixture)
        await fixture.create("a", worker_job(labels=":group=g"))
        await BatchRecords._close(fixture)
        more = worker_job(labels=":group=g")
        await fixture.refused("b", plans.plan_create(more, fixture.operation_id()))
        token = token_of(await fixture.start("a"))
        join = plans.plan_create(more, fixture.operation_id(), run=("a", token), member=True)
        await fixture.do("b", join)
        assert (await fixture.store.apply([Write("b", join)])).outcomes[0].repeated
        await complete_run(fixture, "a", token)
        await fixture.refused("c", plans.plan_create(more, fixture.operation_id(), run=("a", token), member=True))
        await complete(fixture, "b")
        assert (await fixture.job("g")).status is JobStatus.COMPLETED
        await fixture.refused("c", plans.plan_create(more, fixture.operation_id()))

    async def test_close_is_refused_for_other_records_and_for_a_closed_batch(self, fixture: StoreFixture) -> None:
        await fixture.create("m", caller_job(labels=":group=g"))
        await fixture.do("m", plans.plan_update(fixture.operation_id(), "running"))
        await fixture.create("w", {**worker_job(), "type": "batch"})
        await fixture.start("w")
        for name in ("m", "w"):
            await fixture.refused(name, plans.plan_close_batch(fixture.operation_id(), "group:g", "closed"))
        await BatchRecords._open(fixture)
        await BatchRecords._close(fixture)
        await fixture.refused("g", plans.plan_close_batch(fixture.operation_id(), "group:g", "closed"))

    async def test_open_is_refused_for_other_records_and_for_a_closed_batch(self, fixture: StoreFixture) -> None:
        await fixture.create("m", caller_job(labels=":group=g"))
        await fixture.create("w", {**worker_job(), "type": "batch"})
        for name in ("m", "w", "nothing"):
            await fixture.refused(name, plans.plan_open_batch(fixture.operation_id()))
        await fixture.start("w")
        await fixture.refused("w", plans.plan_open_batch(fixture.operation_id()))
        await fixture.create("g", {**batch(), "stale_after": "5000000"})
        for _ in range(2):
            await fixture.do("g", plans.plan_open_batch(fixture.operation_id()))
            job = await fixture.job("g")
            assert (job.status.value, job.attempt, "stale" in job.record) == ("running", 1, True)
        await fixture.create("a", worker_job(labels=":group=g"))
        await BatchRecords._close(fixture)
        await fixture.refused("g", plans.plan_open_batch(fixture.operation_id()))
        for to in (None, "running", "completed", "failed"):
            await fixture.refused("g", plans.plan_update(fixture.operation_id(), to, message="m"))
        assert "stale" not in (await fixture.job("g")).record
        await complete(fixture, "a")
        await fixture.refused("g", plans.plan_open_batch(fixture.operation_id()))

    async def test_cancelled_batch_holds_nothing(self, fixture: StoreFixture) -> None:
        await BatchRecords._open(fixture)
        await fixture.create("a", worker_job(labels=":group=g"))
        await BatchRecords._close(fixture)
        await fixture.do("g", plans.plan_cancel(fixture.operation_id()))
        assert await fixture.store.held_by("group:g", 9) == []
        await complete(fixture, "a")
        assert (await fixture.job("g")).status is JobStatus.CANCELLED

    async def test_sweep_ends_the_batch_of_a_dead_process(self, fixture: StoreFixture) -> None:
        await BatchRecords._open(fixture)
        await fixture.create("a", worker_job(labels=":group=g"))
        await BatchRecords._close(fixture)
        with dying(fixture.store):
            await complete(fixture, "a")
        assert (await fixture.job("g")).status is JobStatus.RUNNING
        await fixture.store.sweep(lease=30, interval=0)
        assert (await fixture.job("g")).status is JobStatus.COMPLETED

    async def test_members_are_counted_exactly(self, fixture: StoreFixture) -> None:
        assert await fixture.store.member_counts(["group:g"]) == [{}]
        assert await fixture.store.open_members("group:g", 9) == []
        for name in "abcd":
            await fixture.create(name, worker_job(labels=":group=g"))
        await complete(fixture, "a")
        await fail(fixture, "b")
        await fixture.store.apply([Write("c", plans.plan_delete(fixture.operation_id()))])
        assert await fixture.store.member_counts(["group:g"]) == [{"": 1, "completed": 1, "failed": 1}]
        assert await fixture.store.open_members("group:g", 9) == ["d"]
        await fixture.do("b", plans.plan_retry(fixture.operation_id()))
        assert sorted(await fixture.store.open_members("group:g", 9)) == ["b", "d"]
        assert await fixture.store.member_counts(["group:g", "group:none"]) == [{"": 2, "completed": 1}, {}]
        assert await fixture.store.member_counts([]) == []


async def complete_run(fixture: StoreFixture, name: str, token: str) -> None:
    """Complete a run that has started."""
    await fixture.do(name, plans.plan_complete(fixture.operation_id(), token, None, {}))
