"""Jobs that a run makes."""

from __future__ import annotations

import pytest

from milepost.core import transitions as plans
from milepost.core.job import JobStatus
from milepost.core.transitions.change import Change
from milepost.stores.protocol import Write
from milepost.testing.conformance.groups import complete, dying, fail, is_cancelled, is_held, is_ready
from milepost.testing.conformance.harness import Scenarios, StoreFixture, queue_job, token_of, worker_job
from milepost.testing.conformance.transition_matrix import CRASH


def child(parent: str = "p", key: str = "k", **fields: str) -> dict[str, str]:
    """Return the fields of a job that a run of a parent makes."""
    return {**worker_job(labels=f":parent_id={parent}"), "child_key": key, **fields}


async def make(fixture: StoreFixture, name: str, token: str, parent: str = "p", **fields: str) -> None:
    """Make a child under the token of its parent."""
    await fixture.do(
        name, plans.plan_create(child(parent, name, **fields), fixture.operation_id(), run=(parent, token))
    )


async def running_parent(fixture: StoreFixture, *children: str, **fields: str) -> str:
    """Create and start a parent with children, and return its token."""
    await fixture.create("p", worker_job(attempts=2, **fields))
    token = token_of(await fixture.start("p"))
    for name in children:
        await make(fixture, name, token)
    return token


class Children(Scenarios):
    """Jobs that a run makes."""

    async def test_child_is_made_under_the_token_of_its_parent_only(self, fixture: StoreFixture) -> None:
        """I30: none is made while the parent does not run under the token that makes it, and one for each key."""
        await fixture.create("p", worker_job(attempts=2))
        for token in ("", "1:none"):
            await fixture.refused("a", plans.plan_create(child(), fixture.operation_id(), run=("p", token)))
        first = token_of(await fixture.start("p", lease=0))
        await make(fixture, "a", first)
        await fixture.refused("a", plans.plan_create(child(), fixture.operation_id(), run=("p", first)))
        await fixture.do("p", plans.plan_lease_expired(fixture.operation_id(), crashes_left=2, **CRASH))
        await fixture.refused("b", plans.plan_create(child(), fixture.operation_id(), run=("p", first)))
        second = token_of(await fixture.start("p"))
        await fixture.refused("b", plans.plan_create(child(), fixture.operation_id(), run=("p", first)))
        await make(fixture, "b", second)
        await complete(fixture, "a")
        await fixture.do("p", plans.plan_cancel(fixture.operation_id()))
        await fixture.refused("c", plans.plan_create(child(), fixture.operation_id(), run=("p", second)))
        await fixture.refused("c", plans.plan_create(child("none"), fixture.operation_id(), run=("none", second)))

    async def test_suspended_parent_wakes_when_no_child_is_open(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture, "a", "b", "c")
        plan = plans.plan_suspend(fixture.operation_id(), token, {}, groups=("children:p",), ran=1)
        await fixture.do("p", plan)
        await is_held(fixture, "p", "children:p")
        await complete(fixture, "a")
        await fail(fixture, "b")
        await is_held(fixture, "p", "children:p")
        await fixture.do("c", plans.plan_cancel(fixture.operation_id()))
        assert await fixture.store.member_counts(["children:p"]) == [{"completed": 1, "failed": 1, "cancelled": 1}]
        (job,) = await fixture.claim(job_id="p")
        assert (job.attempt, job.waiting_for, "wait_groups" in job.record) == (1, None, False)
        plan = plans.plan_suspend(fixture.operation_id(), token_of(job), {}, groups=("children:p",), ran=1)
        await fixture.do("p", plan)
        await is_ready(fixture, "p")  # no member was open when it was suspended

    async def test_suspended_parent_wakes_at_its_time_before_its_children_end(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture, "a")
        groups = ("children:p",)
        plan = plans.plan_suspend(fixture.operation_id(), token, {}, groups=groups, wake_at=1, ran=1)
        await fixture.do("p", plan)
        assert [job.job_id for job in await fixture.claim(job_id="p")] == ["p"]

    @pytest.mark.parametrize("end", ["cancelled", "failed", "deleted"])
    async def test_end_of_parent_cancels_open_children(self, fixture: StoreFixture, end: str) -> None:
        """I31: no child starts after the parent was cancelled."""
        token = await running_parent(fixture, "a", "b", "c")
        await complete(fixture, "c")
        run = token_of(await fixture.start("b"))
        await make(fixture, "b1", run, "b")
        if end == "failed":
            plan = plans.plan_fail(fixture.operation_id(), token, error="no", failure='{"kind":"error"}', report={})
        else:
            plan = (plans.plan_cancel if end == "cancelled" else plans.plan_delete)(fixture.operation_id())
        await fixture.store.apply([Write("p", plan)])
        for name in ("a", "b", "b1"):
            job = await fixture.job(name)
            assert (name, job.status, job.receipt and job.receipt.reason) == (name, "cancelled", "parent_ended")
        assert (await fixture.job("c")).status is JobStatus.COMPLETED
        assert await fixture.claim(most=9) == []
        assert await fixture.store.open_members("children:p", 9) == []

    async def test_orphan_is_not_claimable_before_it_is_cancelled(self, fixture: StoreFixture) -> None:
        await running_parent(fixture, "a", "b")
        with dying(fixture.store):
            await fixture.do("p", plans.plan_cancel(fixture.operation_id()))
        assert [(await fixture.job(name)).status.value for name in "ab"] == ["pending", "pending"]
        assert await fixture.claim(most=9) == []
        await fixture.refused("a", fixture.starts(1)[0])
        await fixture.store.sweep(lease=30, interval=0)
        assert [(await fixture.job(name)).status.value for name in "ab"] == ["cancelled", "cancelled"]
        assert (await fixture.store.sweep(lease=30, interval=0)).closing == ()

    @pytest.mark.parametrize("is_suspended", [False, True])
    async def test_orphan_is_not_delivered_by_a_task_queue(self, fixture: StoreFixture, is_suspended: bool) -> None:
        def deliver() -> Change:
            operation_id = fixture.operation_id()
            return plans.plan_deliver(operation_id, nonce=operation_id, lease=60_000_000, worker="w")

        await fixture.create("p", queue_job(dispatch_after="0"))
        token = token_of(await fixture.made("p", deliver()))
        fields = {**queue_job(labels=":parent_id=p", dispatch_after="0"), "child_key": "k"}
        for name in "ab":
            await fixture.do(name, plans.plan_create(fields, fixture.operation_id(), run=("p", token)))
        await fixture.tick()
        assert {due.job_id for due in (await fixture.store.sweep(lease=30, interval=0)).due} == {"a", "b"}
        run = token_of(await fixture.made("a", deliver()))
        if is_suspended:
            await fixture.do("a", plans.plan_suspend(fixture.operation_id(), run, {}, wake_at=1, ran=1))
        with dying(fixture.store):
            await fixture.do("p", plans.plan_cancel(fixture.operation_id()))
        await fixture.refused("a", deliver())
        await fixture.refused("b", deliver())

    @staticmethod
    async def _in_each_state(fixture: StoreFixture) -> None:
        """Make children of a running parent that are pending, running, suspended, and pending while a run stops."""
        await running_parent(fixture, "pending", "running", "suspended", "blocked")
        for name in ("running", "suspended", "blocked"):
            token = token_of(await fixture.start(name))
            if name == "suspended":
                plan = plans.plan_suspend(fixture.operation_id(), token, {}, wake_at=1, ran=1)
                await fixture.do(name, plan)
            elif name == "blocked":
                await fixture.do(name, plans.plan_cancel(fixture.operation_id()))
                await fixture.do(name, plans.plan_retry(fixture.operation_id()))

    async def test_children_are_cancelled_in_each_state(self, fixture: StoreFixture) -> None:
        """I31: the cascade cancels no child of an open parent."""
        await Children._in_each_state(fixture)
        states = ("pending", "running", "suspended", "blocked")
        for name in states:
            await fixture.refused(name, plans.plan_cancel_orphan(fixture.operation_id()))
        with dying(fixture.store):
            await fixture.do("p", plans.plan_cancel(fixture.operation_id()))
        await fixture.refused("suspended", fixture.starts(1)[0])
        for name in states:
            job = await fixture.made(name, plans.plan_cancel_orphan(fixture.operation_id()))
            assert job.receipt is not None
            how = {"pending": "never_started", "suspended": "cooperative"}.get(name)
            assert (name, job.status.value, job.receipt.how) == (name, "cancelled", how)
        assert len(await fixture.store.draining_leases()) == 3

    async def test_child_is_retried_by_a_later_attempt_of_its_parent(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture)
        await make(fixture, "a", token, parent_attempt=".1")
        await fail(fixture, "a")

        def retry(token: str, generation: str) -> Change:
            return plans.plan_retry_child(fixture.operation_id(), run=("p", token), generation=generation)

        await fixture.refused("a", retry(token, ".1"))
        await fixture.refused("a", retry("1:none", ".2"))
        job = await fixture.made("a", retry(token, ".2"))
        assert (job.status.value, job.record["parent_attempt"]) == ("pending", ".2")
        await is_ready(fixture, "a")

    async def test_child_that_is_retried_waits_again_for_what_it_follows(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture, "a")
        fields = {**child("p", "b"), "labels": ":parent_id=p\x1f:after=job:a", "parent_attempt": ".1"}
        await fixture.do("b", plans.plan_create(fields, fixture.operation_id(), run=("p", token)))
        await fail(fixture, "a")
        await is_cancelled(fixture, "b", "a")
        for name in "ab":
            again = plans.plan_retry_child(fixture.operation_id(), run=("p", token), generation=".2")
            await fixture.do(name, again)
        await is_held(fixture, "b", "job:a")
        await complete(fixture, "a")
        await is_ready(fixture, "b")

    async def test_child_is_not_retried_without_its_parent(self, fixture: StoreFixture) -> None:
        """It could not start, and would stay pending."""
        token = await running_parent(fixture, "a", "b")
        await make(fixture, "free", token, detached="1")
        await fail(fixture, "b")
        await fixture.do("b", plans.plan_retry(fixture.operation_id()))
        for name in ("b", "free"):
            await fail(fixture, name)
        await fixture.do("p", plans.plan_cancel(fixture.operation_id()))
        for name in "ab":
            for how in ({}, {"from_start": True}, {"waits": True}):
                await fixture.refused(name, plans.plan_retry(fixture.operation_id(), **how))
        await fixture.do("free", plans.plan_retry(fixture.operation_id()))
        await fixture.do("p", plans.plan_retry(fixture.operation_id()))
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        await fixture.store.apply([Write("p", plans.plan_delete(fixture.operation_id()))])
        await fixture.refused("b", plans.plan_retry(fixture.operation_id()))

    async def test_retried_parent_keeps_its_children(self, fixture: StoreFixture) -> None:
        """I31: the cascade cancels no child of an open parent."""
        await running_parent(fixture, "a", "b")
        with dying(fixture.store):
            await fixture.do("p", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("p", plans.plan_retry(fixture.operation_id()))
        await fixture.refused("a", plans.plan_cancel_orphan(fixture.operation_id()))
        await fixture.store.sweep(lease=30, interval=0)
        assert sorted(job.job_id for job in await fixture.claim(most=9) if job.job_id != "p") == ["a", "b"]

    async def test_children_continue_while_their_parent_is_open_or_completed(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture, "a", "b")
        await fixture.do("p", plans.plan_release(fixture.operation_id(), token, {}))
        await is_ready(fixture, "a")
        token = token_of(await fixture.start("p"))
        await fixture.do("p", plans.plan_complete(fixture.operation_id(), token, None, {}))
        await is_ready(fixture, "b")

    async def test_completed_parent_says_how_many_children_it_left_open(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture, "a", "b")
        plan = plans.plan_complete(fixture.operation_id(), token, None, {}, open_children="2")
        await fixture.do("p", plan)
        assert (await fixture.job("p")).open_children == 2
        (event,) = [one for one in await fixture.store.events("p") if one.kind == "completed"]
        assert event.data == {"open_children": 2}

    @pytest.mark.parametrize("end", [plans.plan_cancel, plans.plan_delete])
    async def test_detached_children_continue(self, fixture: StoreFixture, end: object) -> None:
        token = await running_parent(fixture, children="keep")
        await make(fixture, "a", token, detached="1")
        await fixture.store.apply([Write("p", end(fixture.operation_id()))])  # type: ignore[operator]
        await is_ready(fixture, "a")

    async def test_jobs_of_callers_continue_without_the_job_that_they_name(self, fixture: StoreFixture) -> None:
        await running_parent(fixture, "a")
        await fixture.create("mine", worker_job(labels=":parent_id=p"))
        await fixture.create("other", worker_job(labels=":parent_id=none"))
        await fixture.do("p", plans.plan_cancel(fixture.operation_id()))
        assert (await fixture.job("a")).status is JobStatus.CANCELLED
        await is_ready(fixture, "mine")
        await is_ready(fixture, "other")

    async def test_suspension_needs_a_way_to_wake(self, fixture: StoreFixture) -> None:
        with pytest.raises(ValueError, match="to wake"):
            plans.plan_suspend(fixture.operation_id(), "1:a", {}, ran=1)
