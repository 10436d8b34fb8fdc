"""What readers may rely on while others write: the feed, the counts, the fence of a job, and the live part of a record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from milepost.core import transitions as plans
from milepost.core.events import SeenEvents
from milepost.stores.protocol import LIVE_FIELDS, Store, Write
from milepost.testing.conformance.concurrency import at_once
from milepost.testing.conformance.harness import Scenarios, StoreFixture, caller_job, fence, token_of, worker_job

Work = Callable[[Store], Coroutine[Any, Any, None]]


class Promises(Scenarios):
    """The promises that every store keeps, and no more than those."""

    async def test_feed_loses_nothing_and_keeps_the_order_of_each_job(self, fixture: StoreFixture) -> None:
        start = (await fixture.store.feed(None)).position
        ids = [f"j{number}" for number in range(8)]

        def writer(mine: list[str]) -> Work:
            plan = [Write(i, plans.plan_create(caller_job(), fixture.operation_id())) for i in mine]
            for progress in ("0.2", "0.4", "0.6"):
                plan += [
                    Write(i, plans.plan_update(fixture.operation_id(), "running", progress=progress)) for i in mine
                ]
            plan += [Write(i, plans.plan_update(fixture.operation_id(), "completed")) for i in mine]

            async def work(store: Store) -> None:
                for write in plan:
                    assert (await store.apply([write])).outcomes[0].accepted

            return work

        versions: dict[str, list[int]] = defaultdict(list)

        async def reader(store: Store) -> None:
            position, seen = start, SeenEvents()
            while sum(map(len, versions.values())) < 5 * len(ids):
                news = await store.feed(position, limit=3, timeout=20.0)
                assert not news.lost
                assert news.events, "an event was lost"
                for event in filter(seen.is_new, news.events):
                    versions[event.job_id].append(event.version)
                position = news.position

        await at_once(fixture, reader, writer(ids[:4]), writer(ids[4:]))
        assert versions == {job_id: [1, 2, 3, 4, 5] for job_id in ids}

    async def test_feed_gives_all_events_before_a_position(self, fixture: StoreFixture) -> None:
        start = (await fixture.store.feed(None)).position
        for number in range(6):
            await fixture.create(f"j{number}", caller_job())
        first = await fixture.store.feed(start, limit=2)
        rest = await fixture.store.feed(first.position)
        assert {event.job_id for event in (*first.events, *rest.events)} == {f"j{number}" for number in range(6)}

    async def test_counts_are_exact_while_others_write(self, fixture: StoreFixture) -> None:
        ids = [f"j{number:02d}" for number in range(40)]
        await fixture.store.apply([Write(i, plans.plan_create(caller_job(), fixture.operation_id())) for i in ids])

        def ender(mine: list[str]) -> Work:
            plan = [Write(i, plans.plan_cancel(fixture.operation_id()), answer=False) for i in mine]

            async def work(store: Store) -> None:
                for write in plan:
                    await store.apply([write])

            return work

        async def reader(store: Store) -> None:
            pending = len(ids)
            while pending:
                counts = await store.counts()
                assert sum(counts.values()) == len(ids), "a job was counted twice, or not at all"
                now = counts.get(("t", "pending"), 0)
                assert now <= pending
                pending = now

        await at_once(fixture, reader, ender(ids[:20]), ender(ids[20:]))
        assert await fixture.store.counts() == {("t", "cancelled"): len(ids)}

    async def test_fence_of_a_job_grows_with_each_start(self, fixture: StoreFixture) -> None:
        for job_id in ("a", "b"):
            await fixture.create(job_id, worker_job(attempts=5))
        fences: dict[str, list[int]] = defaultdict(list)
        for _ in range(3):
            for job_id in ("a", "b"):
                token = token_of(await fixture.start(job_id))
                fences[job_id].append(fence(token))
                await fixture.do(job_id, plans.plan_release(fixture.operation_id(), token, {}))
        assert all(found == sorted(set(found)) for found in fences.values())

    async def test_report_changes_the_live_part_alone(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        started = await fixture.start("a")
        report = {
            "progress": "0.5", "message": "half", "stages": '[{"name":"Load"}]', "item_counts": '{"done":1}',
            "eta": '{"earliest":"x","latest":"y"}', "cursors": '{"Load":"k"}',
        }  # fmt: skip
        for kind in ("progress", "stage"):
            change = plans.plan_report(fixture.operation_id(), token_of(started), report, kind)
            job = await fixture.made("a", change)
            changed = {name for name in job.record if job.record[name] != started.record.get(name)}
            assert changed <= LIVE_FIELDS
            assert started.record.keys() <= job.record.keys()

    async def test_store_gives_a_pace_for_reports(self, fixture: StoreFixture) -> None:
        assert 0 < fixture.store.report_interval <= 5

    async def test_store_has_attribute_shared(self, fixture: StoreFixture) -> None:
        """It is set on the class, so that both APIs agree."""
        assert fixture.store.shared is fixture.store.with_blocking(blocking=True).shared
