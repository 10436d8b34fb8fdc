"""Repeated operations: a reply can be lost, and whoever asks again must not do it twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.stores.protocol import Claim, Write
from milepost.testing.conformance.cells import CRASH, FAILURE, fail
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    World,
    caller_job,
    engine_job,
    needs_moving_clock,
    token_of,
    track_job,
    worker_job,
)
from milepost.testing.conformance.runs import ENDS, REPORT


class Repeats(Scenarios):
    """A reply can be lost: whoever asks again with the same operation id gets the same answer, and nothing happens twice."""

    @pytest.mark.parametrize(
        "kind", ["create", "track", "start", "deliver", "report", "log", "checkpoint", "complete", "fail", "again",
                 "release", "cancel", "retry", "update", "receipt", "lost", "expire"],
    )  # fmt: skip
    async def test_a_repeated_change_is_answered_again(self, world: World, kind: str) -> None:
        change = await _ready(world, kind)
        first = await world.attempt("a", change)
        events = await world.store.events("a")
        feed = (await world.store.feed("0")).position
        await world.tick()
        again = await world.attempt("a", change)
        assert first.accepted
        assert (again.accepted, again.repeated, again.case) == (True, True, first.case)
        assert again.job is not None
        assert first.job is not None
        assert dict(again.job.record) == dict(first.job.record)
        assert await world.store.events("a") == events
        assert (await world.store.feed("0")).position == feed

    async def test_a_repeat_is_known_after_three_others(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        change = plans.plan_report(world.op(), token, {"message": "first"})
        await world.do("a", change)
        for number in range(3):
            await world.do("a", plans.plan_report(world.op(), token, {"message": str(number)}))
        outcome = await world.attempt("a", change)
        assert outcome.repeated
        assert outcome.job is not None
        assert outcome.job.message == "2"

    async def test_the_operation_that_created_a_job_is_known_for_all_its_life(self, world: World) -> None:
        change = plans.plan_create(worker_job(), world.op())
        await world.do("a", change)
        token = token_of(await world.start("a"))
        for _ in range(5):
            await world.do("a", plans.plan_report(world.op(), token, {}))
        await world.do("a", plans.plan_complete(world.op(), token, None, {}))
        outcome = await world.attempt("a", change)
        assert (outcome.accepted, outcome.repeated) == (True, True)
        outcome = await world.attempt("a", plans.plan_create(worker_job(), world.op()))
        assert (outcome.accepted, outcome.repeated) == (False, False)

    async def test_a_repeated_submit_does_not_bring_a_deleted_job_back(self, world: World) -> None:
        change = plans.plan_create(worker_job(), world.op())
        await world.do("a", change)
        await world.do("a", plans.plan_delete(world.op()))
        outcome = await world.attempt("a", change)
        assert (outcome.accepted, outcome.repeated, outcome.job) == (False, True, None)
        assert await world.store.get("a") is None
        assert await world.store.counts() == {}
        await world.create("a", worker_job())
        assert (await world.job("a")).version == 1

    async def test_a_repeated_delete_does_not_take_the_next_job_of_that_id(self, world: World) -> None:
        await world.create("a", worker_job())
        change = plans.plan_delete(world.op())
        assert (await world.attempt("a", change)).accepted
        outcome = await world.attempt("a", change)
        assert (outcome.accepted, outcome.repeated, outcome.job) == (True, True, None)
        await world.create("a", worker_job())
        outcome = (await world.store.apply([Write("a", change)])).outcomes[0]
        assert (outcome.accepted, outcome.repeated) == (True, True)
        assert (await world.job("a")).status.value == "pending"

    async def test_a_repeated_submit_is_forgotten_after_a_minute(self, world: World) -> None:
        clock = needs_moving_clock(world)
        change = plans.plan_create(worker_job(), world.op())
        await world.do("a", change)
        await world.do("a", plans.plan_delete(world.op()))
        clock.advance(59)
        assert not (await world.attempt("a", change)).accepted
        clock.advance(2)
        assert (await world.attempt("a", change)).accepted

    async def test_a_repeated_claim_gives_the_same_jobs(self, world: World) -> None:
        for name in "abcd":
            await world.create(name, worker_job())
        claim = Claim("w1", {"q": None}, world.starts(2), world.op())
        first = (await world.store.apply([], claim)).claimed
        again = (await world.store.apply([], claim)).claimed
        assert [j.job_id for j in first] == ["a", "b"]
        assert [dict(j.record) for j in again] == [dict(j.record) for j in first]
        assert [j.job_id for j in await world.claim(most=5)] == ["c", "d"]
        again = (await world.store.apply([], claim)).claimed
        assert again == [], "one answer is kept for each worker: that of its last claim"


async def _ready(world: World, kind: str) -> Change:
    """Bring job `a` to where a change of that kind is accepted; the change."""
    op = world.op()
    births: dict[str, Callable[[], Change]] = {
        "create": lambda: plans.plan_create(worker_job(), op),
        "track": lambda: plans.plan_track(track_job(), op, nonce="n", lease=LONG),
    }
    if kind in births:
        return births[kind]()
    fields = {"deliver": engine_job(), "update": caller_job(), "expire": worker_job(not_after="1")}
    await world.create("a", fields.get(kind, worker_job()))
    waiting: dict[str, Callable[[], Change]] = {
        "start": lambda: plans.plan_start(op, nonce="n", lease=LONG, worker="w"),
        "deliver": lambda: plans.plan_deliver(op, nonce="n", lease=LONG, worker="w"),
        "update": lambda: plans.plan_update(op, "running"),
        "expire": lambda: plans.plan_expire(op, **FAILURE),
        "cancel": lambda: plans.plan_cancel(op),
    }
    if kind in waiting:
        return waiting[kind]()
    token = token_of(await world.start("a", lease=0))
    if kind == "receipt":
        await world.do("a", plans.plan_cancel(world.op()))
    if kind == "retry":
        await world.do("a", ENDS["failed"](world.op(), token))
    return {
        "report": lambda: plans.plan_report(op, token, REPORT),
        "log": lambda: plans.plan_log(op, token, '{"lines":[]}'),
        "checkpoint": lambda: plans.plan_checkpoint(op, token, "1", {}),
        "complete": lambda: ENDS["completed"](op, token),
        "fail": lambda: ENDS["failed"](op, token),
        "again": lambda: fail(op, token, 0),
        "release": lambda: plans.plan_release(op, token, {}),
        "receipt": lambda: plans.plan_receipt(op, token, "cooperative", confirmed=True),
        "retry": lambda: plans.plan_retry(op),
        "lost": lambda: plans.plan_lost(op, crashes_left=2, **CRASH),
    }[kind]()
