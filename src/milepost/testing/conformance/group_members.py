"""Jobs that wait for groups of several members."""

from __future__ import annotations

import pytest

from milepost.core.transitions import (
    plan_cancel,
    plan_complete,
    plan_create,
    plan_delete,
    plan_flag_cycle,
    plan_no_cycle,
    plan_receipt,
    plan_retry,
)
from milepost.core.transitions.change import Change, Const
from milepost.stores.protocol import Select, Write
from milepost.stores.retention import purge_older
from milepost.testing.conformance.groups import complete, fail, is_cancelled, is_held, is_ready
from milepost.testing.conformance.harness import LONG, Scenarios, StoreFixture, change_with, token_of, worker_job


def member(group: str, *awaited: str, **fields: str) -> dict[str, str]:
    """Return the fields of a worker job that is a member of a group, and follows others."""
    kind, _, name = group.partition(":")
    pairs = [f"{':group' if kind == 'group' else ':parent_id'}={name}", *(f":after={one}" for one in awaited)]
    return {**worker_job(labels="\x1f".join(pairs)), **fields}


KINDS = pytest.mark.parametrize("group", ["group:g", "children:p", "children:0199f3a2-7c1e-7d41-b2a0-5b1f0d6f9c11"])


class GroupMembers(Scenarios):
    """Jobs that follow all members of a group, or all children of a job."""

    @staticmethod
    async def _prepare(fixture: StoreFixture, group: str, *members: str) -> None:
        kind, _, parent = group.partition(":")
        if kind == "children":
            await fixture.create(parent, worker_job())
            await fixture.start(parent)
        await GroupMembers._add(fixture, group, *members)

    @staticmethod
    async def _add(fixture: StoreFixture, group: str, *members: str) -> None:
        """Create members of a group, those of ``children:`` as their running parent does."""
        kind, _, parent = group.partition(":")
        for name in members:
            if kind == "group":
                await fixture.create(name, member(group))
            else:
                run = (parent, token_of(await fixture.job(parent)))
                fields = member(group, child_key=name)
                await fixture.do(name, plan_create(fields, fixture.operation_id(), run=run))

    @KINDS
    async def test_job_starts_when_no_member_is_open(self, fixture: StoreFixture, group: str) -> None:
        await GroupMembers._prepare(fixture, group, "a", "b")
        await fixture.create("then", worker_job(labels=f":after={group}"))
        await is_held(fixture, "then", group)
        await complete(fixture, "a")
        await is_held(fixture, "then", group)
        await GroupMembers._add(fixture, group, "c")  # a member that joins later counts, too
        await complete(fixture, "b")
        await is_held(fixture, "then", group)
        await complete(fixture, "c")
        await is_ready(fixture, "then")
        await GroupMembers._add(fixture, group, "d")
        await fixture.create("next", worker_job(labels=f":after={group}"))
        await is_held(fixture, "next", group)

    @KINDS
    async def test_failed_member_cancels_what_follows(self, fixture: StoreFixture, group: str) -> None:
        await GroupMembers._prepare(fixture, group, "a", "b", "c")
        await fixture.create("then", worker_job(labels=f":after={group}"))
        await fixture.create("anyway", worker_job(labels=f":after={group}", on_failure="run"))
        await fixture.create("hopeful", worker_job(labels=f":after={group}\x1f:after=job:c"))
        for name in ("a", "b"):
            await fail(fixture, name)
        await fixture.do("b", plan_retry(fixture.operation_id()))
        await complete(fixture, "b")
        await is_held(fixture, "then", group)
        await complete(fixture, "c")
        await is_cancelled(fixture, "then", "a")
        await is_cancelled(fixture, "hopeful", "a")
        await is_ready(fixture, "anyway")

    @KINDS
    @pytest.mark.parametrize("removal", ["delete", "purge"])
    async def test_failure_of_a_removed_member_is_kept(self, fixture: StoreFixture, group: str, removal: str) -> None:
        await GroupMembers._prepare(fixture, group, "a", "b", "c")
        await fixture.create("then", worker_job(labels=f":after={group}"))
        await fail(fixture, "a")
        await complete(fixture, "b")
        await fixture.tick()
        if removal == "purge":
            assert await purge_older(fixture.store, ttl=0) == 0  # an open job waits for the group
        else:
            for name in ("a", "b"):
                await fixture.store.apply([Write(name, plan_delete(fixture.operation_id()))])
        await is_held(fixture, "then", group)
        await complete(fixture, "c")
        await is_cancelled(fixture, "then", "a")

    @KINDS
    async def test_stopping_member_keeps_its_group_open(self, fixture: StoreFixture, group: str) -> None:
        await GroupMembers._prepare(fixture, group, "a", "b")
        for name in ("then", "other"):
            await fixture.create(name, worker_job(labels=f":after={group}", on_failure="run"))
        tokens = [token_of(await fixture.start(name)) for name in ("a", "b")]
        await fixture.store.apply([Write("a", plan_delete(fixture.operation_id()))])
        await fixture.do("b", plan_cancel(fixture.operation_id()))
        await is_held(fixture, "then", group)
        await fixture.create("a", worker_job())  # another job with this id, in no group
        for name, token in zip(("b", "a"), tokens[::-1], strict=True):
            await is_held(fixture, "then", group)
            receipt = plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True)
            await fixture.store.apply([Write(name, receipt)])
        await is_ready(fixture, "then")
        await is_ready(fixture, "other")

    @KINDS
    async def test_deleted_pending_member_closes_its_group(self, fixture: StoreFixture, group: str) -> None:
        await GroupMembers._prepare(fixture, group, "a")
        await fixture.create("then", worker_job(labels=f":after={group}"))
        await fixture.store.apply([Write("a", plan_delete(fixture.operation_id()))])
        await is_cancelled(fixture, "then", "a")

    async def test_job_that_is_retried_to_wait_is_held_again(self, fixture: StoreFixture) -> None:
        await fixture.create("a", member("group:g"))
        await fixture.create("then", worker_job(labels=":after=group:g", unique_key="k"))
        await fail(fixture, "a")
        await is_cancelled(fixture, "then", "a")
        await fixture.do("a", plan_retry(fixture.operation_id()))
        await fixture.do("then", plan_retry(fixture.operation_id(), waits=True))
        await is_held(fixture, "then", "group:g")
        await complete(fixture, "a")
        await is_ready(fixture, "then")
        await fixture.do("then", plan_cancel(fixture.operation_id()))
        await fixture.create("newer", worker_job(unique_key="k"))
        await fixture.refused("then", plan_retry(fixture.operation_id(), waits=True))

    async def test_group_without_members_is_refused(self, fixture: StoreFixture) -> None:
        await fixture.create("a", member("group:g"))
        await fixture.refused("b", plan_create(worker_job(labels=":after=group:G"), fixture.operation_id()))
        await fixture.refused("b", plan_create(worker_job(labels=":after=children:g"), fixture.operation_id()))
        await fixture.create("b", worker_job(labels=":after=children:a"))  # which has no children
        await is_ready(fixture, "b")

    async def test_group_names_are_apart(self, fixture: StoreFixture) -> None:
        await GroupMembers._prepare(fixture, "children:g", "c")
        await fixture.create("a", member("group:g"))
        for kind in ("group", "children", "job"):
            await fixture.create(f"after {kind}", worker_job(labels=f":after={kind}:g"))
        await complete(fixture, "a")
        await is_ready(fixture, "after group")
        await is_held(fixture, "after children", "children:g")
        await is_held(fixture, "after job", "job:g")
        await complete(fixture, "c")
        await is_ready(fixture, "after children")
        await is_held(fixture, "after job", "job:g")

    async def test_job_that_only_names_a_parent_is_no_child_of_it(self, fixture: StoreFixture) -> None:
        """Else a caller could keep a run waiting, or fail it."""
        await GroupMembers._prepare(fixture, "children:p", "a")
        await fixture.create("then", worker_job(labels=":after=children:p"))
        for name in ("mine", "bad", "stopping"):
            await fixture.create(name, member("children:p"))
        await fixture.start("stopping")
        await fixture.do("stopping", plan_cancel(fixture.operation_id()))
        await fail(fixture, "bad")
        assert await fixture.store.member_counts(["children:p"]) == [{"": 1}]
        assert await fixture.store.open_members("children:p", 9) == ["a"]
        await is_held(fixture, "then", "children:p")
        await complete(fixture, "a")
        await is_ready(fixture, "then")
        await fixture.store.apply([Write("mine", plan_delete(fixture.operation_id()))])
        assert await fixture.store.member_counts(["children:p"]) == [{"completed": 1}]

    async def test_chain_of_groups_is_released_in_order(self, fixture: StoreFixture) -> None:
        await fixture.create("a", member("group:0"))
        for level in range(1, 4):
            for name in "xy":
                await fixture.create(f"{level}{name}", member(f"group:{level}", f"group:{level - 1}"))
        await complete(fixture, "a")
        for level in range(1, 4):
            claimed = await fixture.claim(most=9)
            assert sorted(job.job_id for job in claimed) == [f"{level}x", f"{level}y"]
            for job in claimed:
                await fixture.do(job.job_id, plan_complete(fixture.operation_id(), token_of(job), None, {}))

    async def test_held_member_is_due_for_a_check_of_cycles(self, fixture: StoreFixture) -> None:
        async def due() -> list[str]:
            return [one.job_id for one in (await fixture.store.sweep(lease=30, interval=0)).due if one.kind == "stale"]

        async def let_it_be_due(*names: str, **fields: str) -> None:
            sets = (("set", name, Const(value)) for name, value in {"stale": "1", **fields}.items())
            change = change_with("", *sets)
            for name in names:
                await fixture.do(name, change._replace(operation_id=fixture.operation_id()))

        def flag() -> Change:
            return plan_flag_cycle(fixture.operation_id(), LONG, "waits for itself")

        await fixture.create("first", worker_job())
        await fixture.create("alone", worker_job(labels=":after=job:first"))
        assert "stale" not in (await fixture.job("alone")).record
        for name in ("a", "b"):
            job = await fixture.create(name, member("group:g", "job:first"))
            assert int(job.record["stale"]) > await fixture.store.now()
        assert await due() == []
        for change in (flag(), plan_no_cycle(fixture.operation_id(), LONG)):
            await fixture.refused("a", change)
        await let_it_be_due("a", "alone")
        assert sorted(await due()) == ["a", "alone"]
        await let_it_be_due("alone", stalled="by hand")
        for change in (flag(), plan_no_cycle(fixture.operation_id(), LONG)):
            await fixture.refused("alone", change)
        job = await fixture.made("a", flag())
        assert (job.stalled, await fixture.store.count(Select(stalled=True))) == ("waits for itself", 2)
        await let_it_be_due("a")
        version = (await fixture.job("a")).version
        assert (await fixture.attempt("a", flag())).branch == 1
        assert (await fixture.job("a")).version == version
        for change in (flag(), plan_no_cycle(fixture.operation_id(), LONG)):
            await fixture.refused("a", change)
        await let_it_be_due("a")
        assert (await fixture.attempt("a", plan_no_cycle(fixture.operation_id(), LONG))).branch == 0
        assert await fixture.store.count(Select(stalled=True)) == 1
        await let_it_be_due("a")
        assert (await fixture.attempt("a", plan_no_cycle(fixture.operation_id(), LONG))).branch == 1
        await let_it_be_due("a")
        await fixture.made("a", flag())
        await complete(fixture, "first")
        assert not (await fixture.job("a")).record.keys() & {"stale", "stalled", "held"}
        await let_it_be_due("a", stalled="by hand")
        await fixture.refused("a", flag())
        assert (await fixture.attempt("a", plan_no_cycle(fixture.operation_id(), LONG))).branch == 2
        assert "stale" not in (await fixture.job("a")).record
        await is_ready(fixture, "a")
