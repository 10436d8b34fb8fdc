"""Events: of a job, without a gap; of the namespace, as a feed that can be waited on (I11)."""

from __future__ import annotations

import asyncio
import threading

from milepost.core import lifecycle as plans
from milepost.core.change import Case, Change, Shape
from milepost.core.defaults import EVENTS_KEPT
from milepost.core.events import Event
from milepost.stores.driving import drive
from milepost.stores.protocol import Store, Write
from milepost.testing.conformance.cells import fail
from milepost.testing.conformance.harness import Scenarios, World, caller_job, token_of, worker_job
from milepost.testing.conformance.language import ODD, made


class Events(Scenarios):
    """The events of a job."""

    async def test_every_accepted_change_is_an_event_with_the_version_as_its_number(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_report(world.op(), token, {"progress": "0.25", "message": "m"}))
        await world.do("a", plans.plan_checkpoint(world.op(), token, "1", {"progress": "0.5"}))
        await world.do("a", plans.plan_report(world.op(), token, {"stages": '[{"name":"Load"}]'}, "stage"))
        await world.do("a", plans.plan_log(world.op(), token, '{"lines":[{"text":"hello"}]}'))
        await world.refused("a", plans.plan_report(world.op(), "1:forged", {}))
        job = await world.made("a", plans.plan_complete(world.op(), token, "1", {}))
        feed = [e for e in (await world.store.feed("0")).events if e.job_id == "a"]
        kinds = ["created", "running", "progress", "checkpoint", "stage", "log", "completed"]
        assert [(e.version, e.kind) for e in feed] == list(enumerate(kinds, 1))
        assert job.version == 7
        kept = await world.store.events("a")
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

    async def test_events_after_a_version(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        for _ in range(4):
            await world.do("a", plans.plan_log(world.op(), token, '{"lines":[]}'))
        assert [e.version for e in await world.store.events("a")] == [1, 2, 3, 4, 5, 6]
        assert [e.version for e in await world.store.events("a", after=4)] == [5, 6]
        assert [e.version for e in await world.store.events("a", after=1, limit=2)] == [2, 3]
        assert await world.store.events("a", after=6) == []
        assert await world.store.events("nobody") == []
        await world.do("a", plans.plan_complete(world.op(), token, None, {}))
        assert [e.version for e in await world.store.events("a", after=4)] == [5, 6, 7]
        assert [e.kind for e in await world.store.events("a", limit=2)] == ["created", "running"]

    async def test_events_stay_with_a_job_that_is_retried(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        await world.do("a", fail(world.op(), token))
        await world.do("a", plans.plan_retry(world.op()))
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_complete(world.op(), token, None, {}))
        kept = await world.store.events("a")
        kinds = ["created", "running", "failed", "retrying", "running", "completed"]
        assert [(e.version, e.kind) for e in kept] == list(enumerate(kinds, 1))
        assert kept[2].data["error"] == "no"

    async def test_the_list_of_a_job_is_bounded_and_keeps_its_lifecycle(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        lines = EVENTS_KEPT + 20
        for begin in range(0, lines, 100):
            batch = range(begin, min(begin + 100, lines))
            await world.store.apply(
                [Write("a", plans.plan_log(world.op(), token, f'{{"lines":[{n}]}}'), answer=False) for n in batch]
            )
        await world.do("a", plans.plan_complete(world.op(), token, None, {}))
        kept = await world.store.events("a", limit=10_000)
        assert [e.kind for e in kept if e.kind != "log"] == ["created", "running", "completed"]
        logs = [e.data["lines"][0] for e in kept if e.kind == "log"]
        assert logs == list(range(lines - EVENTS_KEPT, lines))
        assert [e.version for e in kept] == sorted(e.version for e in kept)

    async def test_an_event_carries_the_fields_as_they_are_afterwards(self, world: World) -> None:
        shape = Shape(
            "tells",
            (Case(("pending",), (), (("set", "message", 0), ("set", "x", "="), ("add", "attempt", "=1")), "told", "life",
                  ("status", "message", "x", "nothing", "attempt", "odd"), 1),),
        )  # fmt: skip
        await world.do("a", made(world.op(), odd=ODD))
        await world.do("a", Change(shape, ("hello", '{"k":[]}'), world.op()))
        event = (await world.store.events("a"))[-1]
        assert (event.kind, event.version, event.message) == ("told", 2, "hello")
        assert dict(event.data) == {"attempt": 1, "odd": ODD, "k": []}
        await world.do("a", Change(shape, ("again", None), world.op()))
        assert dict((await world.store.events("a"))[-1].data) == {"attempt": 2, "odd": ODD}

    async def test_a_delete_is_told_and_ends_the_list(self, world: World) -> None:
        await world.create("a", worker_job())
        await world.do("a", plans.plan_delete(world.op()))
        assert await world.store.events("a") == []
        feed = (await world.store.feed("0")).events
        assert [(e.kind, e.version, e.is_last_word) for e in feed] == [("created", 1, False), ("deleted", 2, True)]
        await world.create("a", worker_job())
        assert [(e.kind, e.version) for e in await world.store.events("a")] == [("created", 1)]


class Feed(Scenarios):
    """The events of all jobs."""

    async def test_a_feed_is_read_on_from_its_position(self, world: World) -> None:
        empty = await world.store.feed(None)
        assert (empty.events, empty.lost) == ([], False)
        for name in "abc":
            await world.create(name, caller_job())
        first = await world.store.feed(empty.position, limit=2)
        assert [(e.job_id, e.kind) for e in first.events] == [("a", "created"), ("b", "created")]
        second = await world.store.feed(first.position)
        assert [e.job_id for e in second.events] == ["c"]
        last = await world.store.feed(second.position)
        assert (last.events, last.position, last.lost) == ([], second.position, False)
        assert [e.job_id for e in (await world.store.feed("0")).events] == ["a", "b", "c"]
        now = await world.store.feed(None)
        assert (now.events, (await world.store.feed(now.position)).events) == ([], [])
        await world.do("b", plans.plan_cancel(world.op()))
        assert [(e.job_id, e.kind) for e in (await world.store.feed(now.position)).events] == [("b", "cancelled")]

    async def test_a_batch_is_told_event_by_event(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        before = (await world.store.feed(None)).position
        await world.store.apply(
            [
                Write("a", plans.plan_report(world.op(), token, {"progress": "0.5"})),
                Write("b", plans.plan_create(worker_job(), world.op())),
                Write("a", plans.plan_complete(world.op(), token, "1", {})),
            ]
        )
        await world.claim()
        seen: list[Event] = []
        position = before
        while events := (page := await world.store.feed(position, limit=1)).events:
            seen += events
            position = page.position
        told = [(e.job_id, e.version, e.kind) for e in seen]
        assert told == [("a", 3, "progress"), ("b", 1, "created"), ("a", 4, "completed"), ("b", 2, "running")]

    async def test_a_wait_ends_with_the_first_event(self, world: World) -> None:
        position = (await world.store.feed(None)).position
        write = Write("a", plans.plan_create(worker_job(), world.op()))
        if world.store.blocking:
            thread = threading.Thread(target=_apply, args=(world.store, write))
            thread.start()
            events = (await world.store.feed(position, timeout=20.0)).events
            thread.join()
        else:
            waiting = asyncio.create_task(world.store.feed(position, timeout=20.0))
            await asyncio.sleep(0)
            await world.store.apply([write])
            events = (await waiting).events
        assert [e.kind for e in events] == ["created"]

    async def test_a_wait_for_nothing_ends_too(self, world: World) -> None:
        position = (await world.store.feed(None)).position
        answer = await world.store.feed(position, timeout=0.02)
        assert (answer.events, answer.lost) == ([], False)


def _apply(store: Store, write: Write) -> None:
    other = store.twin(blocking=True)
    drive(other.apply([write]))
    if other is not store:
        drive(other.close())
