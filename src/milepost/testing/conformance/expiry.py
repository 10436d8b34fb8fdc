"""What a store keeps for some time only: events of the feed, and the ids of operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost.core import transitions as plans
from milepost.core.defaults import FEED_SECONDS
from milepost.core.transitions.change import Change
from milepost.core.transitions.operation_ids import CALLER_WIDTH, CALLERS_KEPT
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    StoreFixture,
    needs_moving_clock,
    token_of,
    worker_job,
)
from milepost.testing.conformance.runs import ENDS


class Expiry(Scenarios):
    """Events and ids of operations expire."""

    async def test_old_events_leave_the_feed(self, fixture: StoreFixture) -> None:
        """Log lines and messages of deleted and purged jobs stayed in the feed until 100,000 events came after them."""
        clock = needs_moving_clock(fixture)
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        for _ in range(3):
            await fixture.do("a", plans.plan_log(fixture.operation_id(), token, '{"lines":["secret"]}'))
        behind = (await fixture.store.feed("0", limit=2)).position
        await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        await fixture.create("b", worker_job())
        end = (await fixture.store.feed("0")).position
        clock.advance(FEED_SECONDS - 60)
        await fixture.store.sweep(lease=0.001, interval=0.001)
        assert len((await fixture.store.feed("0")).events) == 7
        clock.advance(120)
        await fixture.store.sweep(lease=0.001, interval=0.001)
        assert [(e.job_id, e.kind) for e in (await fixture.store.feed("0")).events] == [("b", "created")]
        assert (await fixture.store.feed(behind)).lost
        news = await fixture.store.feed(end)
        assert (news.events, news.position, news.lost) == ([], end, False)
        await fixture.do("b", plans.plan_cancel(fixture.operation_id()))
        assert [e.kind for e in (await fixture.store.feed(end)).events] == ["cancelled"]
        assert [e.kind for e in await fixture.store.events("b")] == ["created", "cancelled"], "a job keeps its own"

    async def test_repeated_submit_is_new_after_an_hour(self, fixture: StoreFixture) -> None:
        clock = needs_moving_clock(fixture)
        change = plans.plan_create(worker_job(), fixture.operation_id())
        await fixture.do("a", change)
        await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        clock.advance(3599)
        assert not (await fixture.attempt("a", change)).accepted
        clock.advance(2)
        assert (await fixture.attempt("a", change)).accepted

    @pytest.mark.parametrize("verb", ["cancel", "retry", "delete"])
    async def test_excess_caller_requests_are_refused(self, fixture: StoreFixture, verb: str) -> None:
        """A request repeated after 64 others within a minute was no longer recognised and was applied twice."""
        await fixture.create("a", worker_job())
        first = plans.plan_cancel(fixture.operation_id())
        await fixture.do("a", first)
        if fixture.clock is not None:
            fixture.clock.advance(20)
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        while len((await fixture.job("a")).record["caller_ops"]) < CALLERS_KEPT * CALLER_WIDTH:
            await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
            await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        if verb == "retry":
            await fixture.do("a", plans.plan_start(fixture.operation_id(), nonce="n", lease=LONG, worker="w"))
            await fixture.do("a", ENDS["failed"](fixture.operation_id(), token_of(await fixture.job("a"))))
        made: dict[str, Callable[[str], Change]]
        made = {"cancel": plans.plan_cancel, "retry": plans.plan_retry, "delete": plans.plan_delete}
        plan = made[verb]
        outcome = await fixture.attempt("a", plan(fixture.operation_id()))
        assert not outcome.accepted
        assert 0 < outcome.wait <= (60_000_000 if fixture.clock is None else 40_000_000)
        assert (await fixture.attempt("a", first)).repeated, "recorded requests stay known"
        if fixture.clock is not None:
            await fixture.until(await fixture.store.now() + outcome.wait)
            assert (await fixture.attempt("a", plan(fixture.operation_id()))).accepted
