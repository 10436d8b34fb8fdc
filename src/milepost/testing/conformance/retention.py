"""The retention of jobs that others need: children go with their root, and members stay while an open job waits for them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from milepost.core import transitions as plans
from milepost.stores.protocol import PurgeResult, Select, Store, Write
from milepost.stores.retention import KEPT_PER_REMOVED, LEVELS, purge_older
from milepost.testing.conformance.children import make, running_parent
from milepost.testing.conformance.groups import complete, fail
from milepost.testing.conformance.harness import Scenarios, StoreFixture, caller_job, token_of, worker_job


async def purge_slice(store: Store, limit: int) -> int:
    """Purge up to `limit` jobs that have ended, and return how many there were."""
    return (await store.purge(before=await store.now(), limit=limit)).removed


async def purged(fixture: StoreFixture, limit: int = 500) -> int:
    """Wait until the clock has moved, then purge up to `limit` jobs that have ended, and return how many there were."""
    await fixture.tick()
    return await purge_slice(fixture.store, limit)


async def left(fixture: StoreFixture) -> set[str]:
    """Return the ids of all jobs."""
    return {job.job_id for job in await fixture.store.select(Select(), 200)}


async def end_parent(fixture: StoreFixture, token: str) -> None:
    """Complete the parent of `running_parent`."""
    await fixture.do("p", plans.plan_complete(fixture.operation_id(), token, None, {}))


class GroupRetention(Scenarios):
    """Purge of jobs with children, and of members of groups."""

    async def test_ended_children_stay_with_their_open_parent(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture, "a", "b")
        await complete(fixture, "a")
        await fail(fixture, "b")
        await fixture.create("other", worker_job())
        await complete(fixture, "other")
        assert await purged(fixture, limit=1) == 1  # those that stay take no place
        assert await purged(fixture) == 0
        assert await left(fixture) == {"p", "a", "b"}
        assert await fixture.store.member_counts(["children:p"]) == [{"completed": 1, "failed": 1}]
        await end_parent(fixture, token)
        assert await purged(fixture) == 3
        assert await left(fixture) == set()
        assert await purged(fixture) == 0

    async def test_tree_goes_when_its_last_member_has_ended(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture, "a", "b")
        run = token_of(await fixture.start("a"))
        await make(fixture, "a1", run, "a")
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), run, None, {}))
        await complete(fixture, "b")
        await end_parent(fixture, token)
        for _ in range(2):
            assert await purged(fixture) == 0
        await complete(fixture, "a1")
        assert await purge_older(fixture.store, ttl=3600) == 0
        assert await purged(fixture) == 4
        assert await left(fixture) == set()

    async def test_retention_counts_from_the_end_of_the_last_child(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture, "a")
        await end_parent(fixture, token)
        before = await fixture.store.now()
        await fixture.tick()
        await complete(fixture, "a")
        between = before + 1  # the parent ended before that, and its child at that time or later
        assert (await fixture.store.purge(before=between, limit=500)).removed == 0
        assert await purged(fixture) == 2

    async def test_large_tree_goes_in_slices_children_first(self, fixture: StoreFixture) -> None:
        names = [f"c{number}" for number in range(5)]
        token = await running_parent(fixture, *names)
        for name in names:
            await complete(fixture, name)
        await end_parent(fixture, token)
        for many in (2, 2):
            assert await purged(fixture, limit=2) == many
            assert "p" in await left(fixture)
        assert await purged(fixture, limit=2) == 2
        assert await left(fixture) == set()

    @pytest.mark.parametrize("last", ["other", "p"])
    async def test_purge_continues_past_more_kept_jobs_than_a_slice(self, fixture: StoreFixture, last: str) -> None:
        names = [f"c{number:02d}" for number in range(2 * KEPT_PER_REMOVED + 10)]
        token = await running_parent(fixture, *names)
        for name in names:
            await complete(fixture, name)
        if last == "other":
            await fixture.create("other", worker_job())
            await complete(fixture, "other")
        else:
            await end_parent(fixture, token)
            await fixture.create("then", worker_job(labels=":after=job:p"))
        await fixture.tick()
        before = await fixture.store.now()
        slices: list[PurgeResult] = []
        while not slices or slices[-1].more:
            slices.append(await fixture.store.purge(before=before, limit=1))
            assert len(slices) < 6, "it passes over the same jobs again"
        assert sum(found.removed for found in slices) == (last == "other")
        assert len(slices) > 1
        assert await purge_older(fixture.store, ttl=0, limit=1) == 0
        assert await left(fixture) == {"p", *names, *(["then"] if last == "p" else [])}

    async def test_long_line_of_children_goes_in_parts(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture)
        names = ["p", *(f"p{number}" for number in range(LEVELS + 10))]
        for parent, name in pairwise(names):
            await make(fixture, name, token, parent)
            await fixture.do(parent, plans.plan_complete(fixture.operation_id(), token, None, {}))
            token = token_of(await fixture.start(name))
        await purged(fixture)
        assert await left(fixture) == set(names[LEVELS + 1 :])
        await fixture.do(names[-1], plans.plan_complete(fixture.operation_id(), token, None, {}))
        while await purged(fixture):
            pass
        assert await left(fixture) == set()

    async def test_children_without_a_parent_go(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture, "a", children="keep")
        await make(fixture, "b", token, detached="1")
        for name in "ab":
            await complete(fixture, name)
        await fixture.store.apply([Write("p", plans.plan_delete(fixture.operation_id()))])
        assert await purged(fixture) == 2

    @pytest.mark.parametrize("change", ["retry", "delete"])
    async def test_parent_that_stayed_and_changed_goes_later(self, fixture: StoreFixture, change: str) -> None:
        token = await running_parent(fixture, children="keep")
        await make(fixture, "a", token, detached="1")
        await fixture.do("p", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("p", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))
        assert await purged(fixture) == 0
        if change == "retry":
            await fixture.do("p", plans.plan_retry(fixture.operation_id()))
        else:
            await fixture.store.apply([Write("p", plans.plan_delete(fixture.operation_id()))])
            await fixture.create("p", worker_job())
        await complete(fixture, "p")
        assert await purged(fixture) == 0
        await complete(fixture, "a")
        assert await purged(fixture) == 2
        assert await purged(fixture) == 0

    async def test_retried_child_keeps_its_parent(self, fixture: StoreFixture) -> None:
        token = await running_parent(fixture, "b")
        await end_parent(fixture, token)
        await fail(fixture, "b")
        await fixture.do("b", plans.plan_retry(fixture.operation_id()))
        assert await purged(fixture) == 0
        await complete(fixture, "b")
        assert await purged(fixture) == 2

    @pytest.mark.parametrize("group", ["job:a", "group:g", "children:p"])
    async def test_member_stays_while_an_open_job_waits_for_it(self, fixture: StoreFixture, group: str) -> None:
        if group == "children:p":
            token = await running_parent(fixture, "a", "b")
        else:
            for name in "ab":
                await fixture.create(name, worker_job(labels=":group=g"))
        await fixture.create("then", worker_job(labels=f":after={group}\x1f:after=job:b"))
        await complete(fixture, "a")
        for _ in range(2):
            assert await purged(fixture) == 0
        await complete(fixture, "b")
        assert await purged(fixture) == 0
        if group == "children:p":
            await end_parent(fixture, token)
            assert await purged(fixture) == 0
        await complete(fixture, "then")
        assert await purged(fixture) == (4 if group == "children:p" else 3)

    async def test_members_of_a_batch_stay_until_it_has_ended(self, fixture: StoreFixture) -> None:
        await fixture.create("g", caller_job(type="batch", labels=":group=g"))
        await fixture.do("g", plans.plan_open_batch(fixture.operation_id()))
        for name in "ab":
            await fixture.create(name, worker_job(labels=":group=g"))
        await complete(fixture, "a")
        assert await purged(fixture) == 0
        await fixture.do("g", plans.plan_close_batch(fixture.operation_id(), "group:g", "closed"))
        assert await purged(fixture) == 0
        await complete(fixture, "b")
        assert await purged(fixture) == 3
