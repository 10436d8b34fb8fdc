"""The ledger of usage: it agrees with the records at every instant, whatever is repeated, refused or removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from milepost.core import transitions as plans
from milepost.core.ledger import MAX_ROWS, MAX_SUM, TOTAL, day_book, read_day, today, tree_books
from milepost.core.usage import encode_usage
from milepost.stores.protocol import Store, Write
from milepost.stores.retention import purge_older
from milepost.testing.conformance.concurrency import at_once
from milepost.testing.conformance.harness import LONG, Scenarios, StoreFixture, token_of, worker_job


async def spend(fixture: StoreFixture, job_id: str, token: str, **millionths: int) -> None:
    """Report the whole sum of a run."""
    await fixture.do(job_id, plans.plan_report(fixture.operation_id(), token, {"usage": encode_usage(millionths)}))


async def tree(fixture: StoreFixture, job_id: str) -> dict[str, int]:
    """Return what the descendants of a job have spent, by name."""
    (book,) = await fixture.store.usage(tree_books([job_id]))
    return {name: amount for (_, name), amount in book.items()}


async def by_day(fixture: StoreFixture) -> dict[tuple[str, str], int]:
    """Return what was spent today by type and label `tenant`, summed over the names of amounts."""
    found: Counter[tuple[str, str]] = Counter()
    day = today(await fixture.store.now())
    (book,) = await fixture.store.usage([day_book(day)])
    for entry in read_day(day, book):
        found[entry.job_type, (entry.labels or {}).get("tenant", "")] += sum(entry.amounts.values())
    return dict(found)


class LedgerOfUsage(Scenarios):
    """Sums of usage by day, and of the descendants of a job."""

    async def test_usage_is_summed_by_type_and_labels(self, fixture: StoreFixture) -> None:
        labels = "tenant=acme\x1f:group=g\x1fteam=a:b"
        await fixture.create("a", worker_job(labels=labels))
        token = token_of(await fixture.start("a"))
        await spend(fixture, "a", token, usd=100, tokens=7)
        await spend(fixture, "a", token, usd=250, tokens=7)
        await fixture.create("b", worker_job(type="other", labels="tenant=acme"))
        await spend(fixture, "b", token_of(await fixture.start("b")), usd=3)
        assert await by_day(fixture) == {("t", "acme"): 257, ("other", "acme"): 3}
        day, total = await fixture.store.usage([day_book(today(await fixture.store.now())), TOTAL])
        assert ("t\x1ftenant=acme\x1fteam=a:b", "usd") in day, "placement is no label of the user"
        assert total == {("t", "usd"): 250, ("t", "tokens"): 7, ("other", "usd"): 3}

    async def test_end_and_kept_step_of_a_run_count_what_they_add(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(attempts=2))
        token = token_of(await fixture.start("a"))
        fails: dict[str, Any] = {"error": "e", "failure": "{}", "report": {"usage": '{"usd":5}'}, "delay": 0}
        await fixture.do("a", plans.plan_fail(fixture.operation_id(), token, **fails))
        token = token_of(await fixture.start("a"))
        step = plans.plan_keep_step(fixture.operation_id(), token, '{"values":[]}', '{"key":"k"}', '{"usd":8}')
        await fixture.do("a", step)
        await fixture.do("a", plans.plan_keep_step(fixture.operation_id(), token, '{"values":[]}', '{"key":"l"}'))
        await fixture.store.apply([Write("a", step)])
        assert await fixture.store.usage([TOTAL]) == [{("t", "usd"): 8}]
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token, "1", {"usage": '{"usd":9,"n":1}'}))
        assert await fixture.store.usage([TOTAL]) == [{("t", "usd"): 9, ("t", "n"): 1}]

    async def test_repeated_and_refused_reports_count_nothing(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(ancestors="root"))
        await fixture.create("root", worker_job(type="r"))
        token = token_of(await fixture.start("a"))
        change = plans.plan_report(fixture.operation_id(), token, {"usage": '{"usd":5}'})
        for _ in range(3):
            await fixture.store.apply([Write("a", change), Write("a", change)])
            await fixture.store.heartbeat([Write("a", change)], [("a", token)], None)
        await fixture.refused("a", plans.plan_report(fixture.operation_id(), "1:lost", {"usage": '{"usd":9}'}))
        assert await by_day(fixture) == {("t", ""): 5}
        assert await tree(fixture, "root") == {"usd": 5}

    async def test_descendants_count_for_their_ancestors_until_these_are_removed(self, fixture: StoreFixture) -> None:
        await fixture.create("root", worker_job(type="r"))
        for number, above in enumerate(("root", "root\x1fa1", "root\x1fgone")):
            await fixture.create(f"a{number + 1}", worker_job(ancestors=above))
            await spend(fixture, f"a{number + 1}", token_of(await fixture.start(f"a{number + 1}")), usd=10**number)
        assert [await tree(fixture, one) for one in ("root", "a1")] == [{"usd": 111}, {"usd": 10}]
        await fixture.do("a2", plans.plan_delete(fixture.operation_id()))
        assert await tree(fixture, "root") == {"usd": 111}, "what a deleted child has spent is not forgotten"
        await fixture.do("root", plans.plan_delete(fixture.operation_id()))
        await fixture.store.sweep(lease=60, interval=0)
        await purge_older(fixture.store, ttl=3600)
        assert [await tree(fixture, one) for one in ("root", "gone")] == [{}, {}]
        assert await by_day(fixture) == {("t", ""): 111}

    async def test_labels_beyond_the_bound_of_a_day_are_added_up_by_type(self, fixture: StoreFixture) -> None:
        names = {f"n{number}": 1 for number in range(16)}
        jobs = [f"a{number:03}" for number in range(MAX_ROWS // len(names) + 2)]

        async def report(some: list[str]) -> None:
            made = [plans.plan_create(worker_job(labels=f"tenant={one}"), fixture.operation_id()) for one in some]
            await fixture.store.apply(list(map(Write, some, made)))
            starts = [
                plans.plan_start(fixture.operation_id(), nonce=fixture.nonce(), lease=LONG, worker="w1") for _ in some
            ]
            running = (await fixture.store.apply(list(map(Write, some, starts)))).outcomes
            tokens = [token_of(one.job) for one in running if one.job is not None]
            spent = {"usage": encode_usage(names)}
            ends = [plans.plan_complete(fixture.operation_id(), token, "1", spent) for token in tokens]
            await fixture.store.apply(list(map(Write, some, ends)))
            await fixture.store.sweep(lease=60, interval=0)

        for at in range(0, len(jobs), 100):
            await report(jobs[at : at + 100])
        await report(["z1", "z2"])
        day = today(await fixture.store.now())
        (book,) = await fixture.store.usage([day_book(day)])
        entries = {None if one.labels is None else one.labels["tenant"]: one.amounts for one in read_day(day, book)}
        assert MAX_ROWS <= len(book) <= MAX_ROWS + len(names), "a name of a type may have one more sum"
        assert sum(book.values()) == (len(jobs) + 2) * len(names), "nothing is lost"
        assert (entries["a000"], entries[None]["n15"] >= 3) == (names, True)
        assert not {"z1", "z2"} & entries.keys()

    async def test_purge_keeps_sums_of_days(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token, "1", {"usage": '{"usd":9}'}))
        await fixture.tick()
        assert await purge_older(fixture.store, ttl=0) == 1
        assert await by_day(fixture) == {("t", ""): 9}

    async def test_sums_have_64_bits(self, fixture: StoreFixture) -> None:
        large = 10**18 + 1
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        for added in range(3):
            await spend(fixture, "a", token, usd=large + added)
        assert await fixture.store.usage([TOTAL]) == [{("t", "usd"): large + 2}]
        for number in range(9):
            await fixture.create(f"b{number}", worker_job())
            await spend(fixture, f"b{number}", token_of(await fixture.start(f"b{number}")), usd=large)
            await fixture.store.sweep(lease=60, interval=0)
        assert await fixture.store.usage([TOTAL]) == [{("t", "usd"): MAX_SUM}], "larger sums are cut off"

    async def test_concurrent_reports_are_all_counted(self, fixture: StoreFixture) -> None:
        jobs = [f"a{number}" for number in range(6)]
        await fixture.create("root", worker_job(type="r"))
        tokens = {}
        for job_id in jobs:
            await fixture.create(job_id, worker_job(ancestors="root"))
            tokens[job_id] = token_of(await fixture.start(job_id))
        plan = {
            job_id: [plans.plan_report(fixture.operation_id(), tokens[job_id], {"usage": encode_usage({"usd": n})}) for n in range(1, 21)]
            for job_id in jobs
        }  # fmt: skip

        def reports(job_id: str) -> Callable[[Store], Coroutine[Any, Any, None]]:
            async def report(store: Store) -> None:
                for change in plan[job_id]:
                    await store.apply([Write(job_id, change)])
                await store.sweep(lease=60, interval=0)

            return report

        await at_once(fixture, *map(reports, jobs))
        assert await tree(fixture, "root") == {"usd": 120}
        assert await by_day(fixture) == {("t", ""): 120}
