"""Events of a job, without gaps, and the feed of all events."""

from __future__ import annotations

import asyncio
import threading

from milepost.core import transitions as plans
from milepost.core.defaults import EVENTS_KEPT
from milepost.core.events import Event
from milepost.core.transitions.change import Branch, Change, Const, TransitionType
from milepost.stores.protocol import Write
from milepost.testing.conformance.harness import (
    Scenarios,
    StoreFixture,
    apply_blocking,
    caller_job,
    create_record,
    token_of,
    worker_job,
)
from milepost.testing.conformance.operations import ODD
from milepost.testing.conformance.transition_matrix import fail


class Events(Scenarios):
    """Events of one job."""

    async def test_each_change_is_one_event_with_its_version(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {"progress": "0.25", "message": "m"}))
        await fixture.do("a", plans.plan_checkpoint(fixture.operation_id(), token, "1", {"progress": "0.5"}))
        await fixture.do(
            "a", plans.plan_report(fixture.operation_id(), token, {"stages": '[{"name":"Load"}]'}, "stage")
        )
        await fixture.do("a", plans.plan_log(fixture.operation_id(), token, '{"lines":[{"text":"hello"}]}'))
        await fixture.refused("a", plans.plan_report(fixture.operation_id(), "1:forged", {}))
        job = await fixture.made("a", plans.plan_complete(fixture.operation_id(), token, "1", {}))
        feed = [e for e in (await fixture.store.feed("0")).events if e.job_id == "a"]
        kinds = ["created", "running", "progress", "checkpoint", "stage", "log", "completed"]
        assert [(e.version, e.kind) for e in feed] == list(enumerate(kinds, 1))
        assert job.version == 7
        kept = await fixture.store.events("a")
        assert kept == [e for e in feed if e.kind != "progress"]
        assert [e.progress for e in feed] == [None, 0.0, 0.25, 0.5, 0.5, None, 1.0]
        assert (feed[2].message, feed[3].message, feed[6].message) == ("m", "m", "m")
        assert feed[4].data["stages"] == [{"name": "Load"}]
        assert feed[5].data["lines"] == [{"text": "hello"}]
        assert (feed[1].data["attempt"], feed[1].data["worker"]) == (1, "w1")
        assert [str(e.status) for e in feed] == ["pending", *["running"] * 5, "completed"]
        assert feed[-1].is_last_word
        assert all(e.at is not None for e in feed)
        assert [e.at for e in feed] == sorted(e.at for e in feed if e.at is not None)
        assert feed[-1].at == job.updated_at == job.completed_at

    async def test_events_after_a_version(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        for _ in range(4):
            await fixture.do("a", plans.plan_log(fixture.operation_id(), token, '{"lines":[]}'))
        assert [e.version for e in await fixture.store.events("a")] == [1, 2, 3, 4, 5, 6]
        assert [e.version for e in await fixture.store.events("a", after=4)] == [5, 6]
        assert [e.version for e in await fixture.store.events("a", after=1, limit=2)] == [2, 3]
        assert await fixture.store.events("a", after=6) == []
        assert await fixture.store.events("missing") == []
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token, None, {}))
        assert [e.version for e in await fixture.store.events("a", after=4)] == [5, 6, 7]
        assert [e.kind for e in await fixture.store.events("a", limit=2)] == ["created", "running"]

    async def test_events_stay_after_retry(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", fail(fixture.operation_id(), token))
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token, None, {}))
        kept = await fixture.store.events("a")
        kinds = ["created", "running", "failed", "retrying", "running", "completed"]
        assert [(e.version, e.kind) for e in kept] == list(enumerate(kinds, 1))
        assert kept[2].data["error"] == "no"

    async def test_event_list_is_bounded_and_keeps_lifecycle(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        lines = EVENTS_KEPT + 20
        for begin in range(0, lines, 100):
            batch = range(begin, min(begin + 100, lines))
            await fixture.store.apply(
                [
                    Write("a", plans.plan_log(fixture.operation_id(), token, f'{{"lines":[{n}]}}'), answer=False)
                    for n in batch
                ]
            )
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token, None, {}))
        kept = await fixture.store.events("a", limit=10_000)
        assert [e.kind for e in kept if e.kind != "log"] == ["created", "running", "completed"]
        logs = [e.data["lines"][0] for e in kept if e.kind == "log"]
        assert logs == list(range(lines - EVENTS_KEPT, lines))
        assert [e.version for e in kept] == sorted(e.version for e in kept)

    async def test_event_carries_fields_after_change(self, fixture: StoreFixture) -> None:
        transition = TransitionType(
            "tells",
            (Branch(("pending",), (), (("set", "message", 0), ("set", "x", Const("")), ("add", "attempt", Const("1"))), "noted", "life",
                  ("status", "message", "x", "nothing", "attempt", "odd"), 1),),
        )  # fmt: skip
        await fixture.do("a", create_record(fixture.operation_id(), odd=ODD))
        await fixture.do("a", Change(transition, ("hello", '{"k":[]}'), fixture.operation_id()))
        event = (await fixture.store.events("a"))[-1]
        assert (event.kind, event.version, event.message) == ("noted", 2, "hello")
        assert dict(event.data) == {"attempt": 1, "odd": ODD, "k": []}
        await fixture.do("a", Change(transition, ("again", None), fixture.operation_id()))
        assert dict((await fixture.store.events("a"))[-1].data) == {"attempt": 2, "odd": ODD}

    async def test_delete_makes_event_and_ends_list(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        assert await fixture.store.events("a") == []
        feed = (await fixture.store.feed("0")).events
        assert [(e.kind, e.version, e.is_last_word) for e in feed] == [("created", 1, False), ("deleted", 2, True)]
        await fixture.create("a", worker_job())
        assert [(e.kind, e.version) for e in await fixture.store.events("a")] == [("created", 1)]


class Feed(Scenarios):
    """The feed of all events."""

    async def test_feed_continues_from_position(self, fixture: StoreFixture) -> None:
        empty = await fixture.store.feed(None)
        assert (empty.events, empty.lost) == ([], False)
        for name in "abc":
            await fixture.create(name, caller_job())
        first = await fixture.store.feed(empty.position, limit=2)
        assert [(e.job_id, e.kind) for e in first.events] == [("a", "created"), ("b", "created")]
        second = await fixture.store.feed(first.position)
        assert [e.job_id for e in second.events] == ["c"]
        last = await fixture.store.feed(second.position)
        assert (last.events, last.position, last.lost) == ([], second.position, False)
        assert [e.job_id for e in (await fixture.store.feed("0")).events] == ["a", "b", "c"]
        now = await fixture.store.feed(None)
        assert (now.events, (await fixture.store.feed(now.position)).events) == ([], [])
        await fixture.do("b", plans.plan_cancel(fixture.operation_id()))
        assert [(e.job_id, e.kind) for e in (await fixture.store.feed(now.position)).events] == [("b", "cancelled")]

    async def test_batch_makes_one_event_per_write(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        before = (await fixture.store.feed(None)).position
        await fixture.store.apply(
            [
                Write("a", plans.plan_report(fixture.operation_id(), token, {"progress": "0.5"})),
                Write("b", plans.plan_create(worker_job(), fixture.operation_id())),
                Write("a", plans.plan_complete(fixture.operation_id(), token, "1", {})),
            ]
        )
        await fixture.claim()
        seen: list[Event] = []
        position = before
        while events := (page := await fixture.store.feed(position, limit=1)).events:
            seen += events
            position = page.position
        kinds = [(e.job_id, e.version, e.kind) for e in seen]
        assert kinds == [("a", 3, "progress"), ("b", 1, "created"), ("a", 4, "completed"), ("b", 2, "running")]

    async def test_feed_wait_ends_with_first_event(self, fixture: StoreFixture) -> None:
        position = (await fixture.store.feed(None)).position
        write = Write("a", plans.plan_create(worker_job(), fixture.operation_id()))
        if fixture.store.blocking:
            thread = threading.Thread(target=apply_blocking, args=(fixture.store, write))
            thread.start()
            events = (await fixture.store.feed(position, timeout=60.0)).events
            thread.join()
        else:
            waiting = asyncio.create_task(fixture.store.feed(position, timeout=60.0))
            await asyncio.sleep(0)
            await fixture.store.apply([write])
            events = (await waiting).events
        assert [e.kind for e in events] == ["created"]

    async def test_feed_wait_times_out(self, fixture: StoreFixture) -> None:
        position = (await fixture.store.feed(None)).position
        answer = await fixture.store.feed(position, timeout=0.02)
        assert (answer.events, answer.lost) == ([], False)
