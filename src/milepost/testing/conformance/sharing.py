"""Two who use one store at once: threads with twins, and both faces. Whatever the order, one of them wins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

from milepost.core import lifecycle as plans
from milepost.core.job import Job
from milepost.stores.driving import drive
from milepost.stores.protocol import Claim, Outcome, Select, Store, Write
from milepost.testing.conformance.harness import Scenarios, World, caller_job, token_of, worker_job
from milepost.testing.conformance.lists import check_lists

T = TypeVar("T")
THREADS = 3


async def at_once(world: World, *works: Callable[[Store], Coroutine[Any, Any, T]]) -> list[T]:
    """Run each work on a thread of its own, with a blocking twin, all begun together; their answers in order."""
    barrier = Barrier(len(works))

    def run(work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        twin = world.store.twin(blocking=True)
        try:
            drive(twin.now())
            barrier.wait(20)
            return drive(work(twin))
        finally:
            if twin is not world.store:
                drive(twin.close())

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(run, work) for work in works]
        if world.store.blocking:
            return [future.result() for future in futures]
        return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))


class Sharing(Scenarios):
    """Threads."""

    async def test_no_job_is_claimed_twice(self, world: World) -> None:
        ids = [f"j{n:02d}" for n in range(30)]
        await world.store.apply([Write(i, plans.plan_create(worker_job(), world.op())) for i in ids])

        def claims(worker: str) -> Callable[[Store], Coroutine[Any, Any, list[Job]]]:
            mine = [Claim(worker, {"q": None}, world.starts(3, worker), world.op()) for _ in range(12)]

            async def work(store: Store) -> list[Job]:
                return [job for claim in mine for job in (await store.apply([], claim)).claimed]

            return work

        answers = await at_once(world, *(claims(f"w{n}") for n in range(THREADS)))
        claimed = [job.job_id for jobs in answers for job in jobs]
        assert sorted(claimed) == ids
        fences = [int(token_of(job).partition(":")[0]) for jobs in answers for job in jobs]
        assert len(set(fences)) == len(fences)
        await check_lists(world, ids)

    async def test_a_limit_holds_whoever_claims(self, world: World) -> None:
        ids = [f"j{n:02d}" for n in range(12)]
        await world.store.apply([Write(i, plans.plan_create(worker_job(), world.op())) for i in ids])

        def claims(worker: str) -> Callable[[Store], Coroutine[Any, Any, int]]:
            mine = [Claim(worker, {"q": 2}, world.starts(2, worker), world.op()) for _ in range(5)]

            async def work(store: Store) -> int:
                return sum([len((await store.apply([], claim)).claimed) for claim in mine])

            return work

        assert sum(await at_once(world, *(claims(f"w{n}") for n in range(THREADS)))) == 2
        assert await world.store.count(Select(statuses=("running",))) == 2

    async def test_a_cancel_and_a_finish_race_and_one_wins(self, world: World) -> None:
        for number in range(10):
            job_id = f"a{number}"
            await world.create(job_id, worker_job())
            token = token_of(await world.start(job_id))
            changes = [
                plans.plan_complete(world.op(), token, "1", {}),
                plans.plan_cancel(world.op()),
                plans.plan_fail(world.op(), token, error="", failure="{}", report={}),
            ]
            outcomes = await at_once(world, *(_applies(job_id, change) for change in changes))
            won = [o for o in outcomes if o.accepted]
            assert len(won) == 1
            status = (await world.job(job_id)).status
            assert all(o.job is not None and o.job.status is status for o in outcomes)
            assert [e.kind for e in await world.store.events(job_id)] == ["created", "running", status.value]

    async def test_one_unique_key_has_one_job_whoever_submits(self, world: World) -> None:
        births = [plans.plan_create(worker_job(unique_key="k"), world.op()) for _ in range(THREADS)]
        outcomes = await at_once(world, *(_applies(f"a{n}", birth) for n, birth in enumerate(births)))
        assert sum(o.accepted for o in outcomes) == 1
        winner = next(f"a{n}" for n, o in enumerate(outcomes) if o.accepted)
        assert {o.holder for o in outcomes if not o.accepted} == {winner}

    async def test_versions_have_no_gap_whoever_writes(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))

        def logs(name: str) -> Callable[[Store], Coroutine[Any, Any, None]]:
            mine = [Write("a", plans.plan_log(world.op(), token, f'{{"lines":["{name}{n}"]}}')) for n in range(20)]

            async def work(store: Store) -> None:
                for write in mine:
                    assert (await store.apply([write])).outcomes[0].accepted

            return work

        await at_once(world, *(logs(f"w{n}-") for n in range(THREADS)))
        events = await world.store.events("a")
        assert [e.version for e in events] == list(range(1, 3 + 20 * THREADS))
        assert (await world.job("a")).version == events[-1].version
        feed = [(e.job_id, e.version) for e in (await world.store.feed("0")).events]
        assert feed == [("a", n) for n in range(1, 3 + 20 * THREADS)]

    async def test_a_put_on_the_shelf_has_one_winner(self, world: World) -> None:
        async def puts(store: Store) -> int | None:
            return await store.shelf_put("k", "mine", version=0)

        answers = await at_once(world, *[puts] * THREADS)
        assert sum(a is not None for a in answers) == 1

    async def test_sweeps_at_once_are_one(self, world: World) -> None:
        async def sweeps(store: Store) -> bool:
            return (await store.sweep(lease=3600.0, interval=3600.0)).skipped

        assert sorted(await at_once(world, *[sweeps] * THREADS)) == [False, True, True]

    async def test_a_blocking_twin_works_beside_an_event_loop(self, world: World) -> None:
        twin = world.store.twin(blocking=True)
        drive(twin.apply([Write("a", plans.plan_create(caller_job(), world.op()))]))
        assert (await world.job("a")).version == 1
        await world.do("a", plans.plan_cancel(world.op()))
        job = drive(twin.get("a"))
        assert job is not None
        assert job.status.value == "cancelled"
        if twin is not world.store:
            drive(twin.close())


def _applies(job_id: str, change: Any) -> Callable[[Store], Coroutine[Any, Any, Outcome]]:
    async def work(store: Store) -> Outcome:
        return (await store.apply([Write(job_id, change)])).outcomes[0]

    return work
