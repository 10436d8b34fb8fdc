"""Concurrent use of one store, by threads and by both APIs: exactly one wins, and what readers may rely on meanwhile."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any, TypeVar

from milepost.core import transitions as plans
from milepost.core.events import SeenEvents
from milepost.core.job import Job
from milepost.stores.protocol import LIVE_FIELDS, Claim, Select, Store, Write, WriteResult
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.answers import answer, ask, suspend
from milepost.testing.conformance.harness import Scenarios, StoreFixture, caller_job, fence, token_of, worker_job
from milepost.testing.conformance.limits import limited_job
from milepost.testing.conformance.lists import check_lists

T = TypeVar("T")
THREADS = 3


async def at_once(fixture: StoreFixture, *works: Callable[[Store], Coroutine[Any, Any, T]]) -> list[T]:
    """Run each function in its own thread with a blocking store, started together; return the results in order."""
    barrier = Barrier(len(works))

    def run(work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        blocking_store = fixture.store.with_blocking(blocking=True)
        assert blocking_store.with_blocking(blocking=True) is blocking_store
        try:
            run_sync(blocking_store.now())
            barrier.wait(60)
            return run_sync(work(blocking_store))
        finally:
            if blocking_store is not fixture.store:
                run_sync(blocking_store.close())

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(run, work) for work in works]
        if fixture.store.blocking:
            return [future.result() for future in futures]
        return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Let threads interleave at nearly every instruction."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


class Concurrency(Scenarios):
    """Concurrent threads."""

    async def test_store_closed_in_one_event_loop_serves_the_others(self, fixture: StoreFixture) -> None:
        """Workers in threads of their own share a store: when one ended, requests of the others failed."""
        store = fixture.store.with_blocking(blocking=False)

        async def use_and_close(thread: int) -> None:
            for number in range(20):
                await store.kv_put(f"{thread}-{number}", "1")
                assert await store.kv_get(f"{thread}-{number}") is not None
                await store.close()

        def run(thread: int) -> None:
            asyncio.run(use_and_close(thread))

        with frequent_switches(), ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(run, range(THREADS)))

    async def test_no_job_is_claimed_twice(self, fixture: StoreFixture) -> None:
        ids = [f"j{n:02d}" for n in range(30)]
        await fixture.store.apply([Write(i, plans.plan_create(worker_job(), fixture.operation_id())) for i in ids])

        def claims(worker: str) -> Callable[[Store], Coroutine[Any, Any, list[Job]]]:
            mine = [Claim(worker, {"q": None}, fixture.starts(3, worker), fixture.operation_id()) for _ in range(12)]

            async def work(store: Store) -> list[Job]:
                return [job for claim in mine for job in (await store.apply([], claim)).claimed]

            return work

        answers = await at_once(fixture, *(claims(f"w{n}") for n in range(THREADS)))
        claimed = [job.job_id for jobs in answers for job in jobs]
        assert sorted(claimed) == ids
        await check_lists(fixture, ids)

    async def test_partitions_that_empty_and_fill_lose_no_job(self, fixture: StoreFixture) -> None:
        """A claim of the last job of a partition meets a submit of the next one."""
        ids = [f"j{n:02d}" for n in range(24)]

        async def submits(store: Store) -> list[str]:
            for number, job_id in enumerate(ids):
                fields = limited_job(f"p{number % 2}")
                await store.apply([Write(job_id, plans.plan_create(fields, fixture.operation_id()))])
            return []

        async def claims(store: Store, worker: str) -> list[str]:
            claim = [Claim(worker, {"t": None}, fixture.starts(1, worker), fixture.operation_id()) for _ in range(30)]
            return [job.job_id for one in claim for job in (await store.apply([], one)).claimed]

        works = [lambda store, worker=f"w{n}": claims(store, worker) for n in range(THREADS - 1)]
        claimed = [job_id for some in await at_once(fixture, submits, *works) for job_id in some]
        while jobs := await fixture.claim(["t"], 9):
            claimed += [job.job_id for job in jobs]
        assert sorted(claimed) == ids

    async def test_limit_holds_for_concurrent_claims(self, fixture: StoreFixture) -> None:
        ids = [f"j{n:02d}" for n in range(12)]
        await fixture.store.apply([Write(i, plans.plan_create(worker_job(), fixture.operation_id())) for i in ids])

        def claims(worker: str) -> Callable[[Store], Coroutine[Any, Any, int]]:
            mine = [Claim(worker, {"q": 2}, fixture.starts(2, worker), fixture.operation_id()) for _ in range(5)]

            async def work(store: Store) -> int:
                return sum([len((await store.apply([], claim)).claimed) for claim in mine])

            return work

        assert sum(await at_once(fixture, *(claims(f"w{n}") for n in range(THREADS)))) == 2
        assert await fixture.store.count(Select(statuses=("running",))) == 2

    async def test_concurrent_cancel_and_finish_have_one_winner(self, fixture: StoreFixture) -> None:
        for number in range(10):
            job_id = f"a{number}"
            await fixture.create(job_id, worker_job())
            token = token_of(await fixture.start(job_id))
            changes = [
                plans.plan_complete(fixture.operation_id(), token, "1", {}),
                plans.plan_cancel(fixture.operation_id()),
                plans.plan_fail(fixture.operation_id(), token, error="", failure="{}", report={}),
            ]
            outcomes = await at_once(fixture, *(_applies(job_id, change) for change in changes))
            won = [o for o in outcomes if o.accepted]
            assert len(won) == 1
            status = (await fixture.job(job_id)).status
            assert all(o.job is not None and o.job.status is status for o in outcomes)
            assert [e.kind for e in await fixture.store.events(job_id)] == ["created", "running", status.value]

    async def test_concurrent_answers_to_one_question_keep_the_first(self, fixture: StoreFixture) -> None:
        """I29: the job wakes with the value of the one that was accepted."""
        for number in range(10):
            job_id = f"a{number}"
            await fixture.create(job_id, worker_job())
            job = await fixture.start(job_id)
            await fixture.do(job_id, ask(fixture, job))
            await fixture.do(job_id, suspend(fixture, job))
            texts = [f"[{value}]" for value in range(THREADS)]
            outcomes = await at_once(fixture, *(_applies(job_id, answer(fixture, questions=text)) for text in texts))
            (kept,) = [text for text, outcome in zip(texts, outcomes, strict=True) if outcome.accepted]
            (claimed,) = await fixture.claim()
            assert (claimed.job_id, claimed.record["questions"]) == (job_id, kept)
            assert [e.kind for e in await fixture.store.events(job_id)].count("answered") == 1

    async def test_concurrent_submits_of_key_create_one_job(self, fixture: StoreFixture) -> None:
        changes = [plans.plan_create(worker_job(unique_key="k"), fixture.operation_id()) for _ in range(THREADS)]
        outcomes = await at_once(fixture, *(_applies(f"a{n}", change) for n, change in enumerate(changes)))
        assert sum(o.accepted for o in outcomes) == 1
        winner = next(f"a{n}" for n, o in enumerate(outcomes) if o.accepted)
        assert {o.key_owner_id for o in outcomes if not o.accepted} == {winner}

    async def test_concurrent_writes_leave_no_version_gap(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))

        def logs(name: str) -> Callable[[Store], Coroutine[Any, Any, None]]:
            # Operation ids are ordered only within one source, so each writer has its own source.
            mine = [Write("a", plans.plan_log(f"{name}{n:05d}", token, '{"lines":[]}')) for n in range(20)]

            async def work(store: Store) -> None:
                for write in mine:
                    assert (await store.apply([write])).outcomes[0].accepted

            return work

        await at_once(fixture, *(logs(f"w{n}-") for n in range(THREADS)))
        events = await fixture.store.events("a")
        assert [e.version for e in events] == list(range(1, 3 + 20 * THREADS))
        assert (await fixture.job("a")).version == events[-1].version
        feed = [(e.job_id, e.version) for e in (await fixture.store.feed("0")).events]
        assert feed == [("a", n) for n in range(1, 3 + 20 * THREADS)]

    async def test_concurrent_kv_puts_have_one_winner(self, fixture: StoreFixture) -> None:
        async def puts(store: Store) -> int | None:
            return await store.kv_put("k", "mine", version=0)

        answers = await at_once(fixture, *[puts] * THREADS)
        assert sum(a is not None for a in answers) == 1

    async def test_concurrent_sweeps_are_one(self, fixture: StoreFixture) -> None:
        async def sweeps(store: Store) -> bool:
            return (await store.sweep(lease=3600.0, interval=3600.0)).skipped

        assert sorted(await at_once(fixture, *[sweeps] * THREADS)) == [False, True, True]

    async def test_blocking_store_works_beside_event_loop(self, fixture: StoreFixture) -> None:
        blocking_store = fixture.store.with_blocking(blocking=True)
        run_sync(blocking_store.apply([Write("a", plans.plan_create(caller_job(), fixture.operation_id()))]))
        assert (await fixture.job("a")).version == 1
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        job = run_sync(blocking_store.get("a"))
        assert job is not None
        assert job.status.value == "cancelled"
        if blocking_store is not fixture.store:
            run_sync(blocking_store.close())


def _applies(job_id: str, change: Any) -> Callable[[Store], Coroutine[Any, Any, WriteResult]]:
    async def work(store: Store) -> WriteResult:
        return (await store.apply([Write(job_id, change)])).outcomes[0]

    return work


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
                news = await store.feed(position, limit=3, timeout=60.0)
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
