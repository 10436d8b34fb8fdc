"""Lists, counts and cursors: complete, in order, and equal to the records, both ways (I12, I13, I14)."""

from __future__ import annotations

import itertools

from milepost.core import lifecycle as plans
from milepost.core.job import Job
from milepost.stores.protocol import Position, Select, Write
from milepost.testing.conformance.harness import Scenarios, World, caller_job, token_of, track_job, worker_job
from milepost.testing.conformance.language import made, told

ALL = Select()


def position(job: Job) -> Position:
    """The place of a job in a list."""
    return Position(int(job.record["created"]), job.job_id)


def matches(job: Job, select: Select) -> bool:
    """Whether a job is one of a selection, told from its record alone."""
    created = int(job.record["created"])
    return (
        (not select.types or job.job_type in select.types)
        and (not select.statuses or job.record["status"] in select.statuses)
        and all(job.labels.get(k) == v for k, v in select.labels)
        and (not select.stalled or bool(job.stalled))
        and (select.created_after is None or created >= select.created_after)
        and (select.created_before is None or created < select.created_before)
    )


async def check_lists(world: World, ids: list[str]) -> None:
    """Every list and every count equals the records of these ids, which are all that ever were."""
    store = world.store
    jobs = [job for job in [await store.get(i) for i in ids] if job is not None]
    newest_first = sorted(jobs, key=position, reverse=True)
    types = sorted({j.job_type for j in jobs} | {"no-such-type"})
    statuses = sorted({j.record["status"] for j in jobs} | {"completed"})
    pairs = sorted({pair for j in jobs for pair in j.labels.items()} | {("owner", "nobody")})
    wanted = [
        ALL,
        Select(stalled=True),
        *(Select(types=(t,)) for t in types),
        *(Select(statuses=(s,)) for s in statuses),
        *(Select(types=(t,), statuses=(s,)) for t, s in itertools.product(types, statuses)),
        *(Select(labels=(p,)) for p in pairs),
        *(Select(labels=two) for two in itertools.combinations(pairs, 2)),
        *(Select(labels=(p,), statuses=(s,)) for p, s in itertools.product(pairs, statuses)),
    ]
    for select in wanted:
        right = [j.job_id for j in newest_first if matches(j, select)]
        assert [j.job_id for j in await store.select(select, len(ids) + 1)] == right, select
        number = await store.count(select)
        assert number in (len(right), None), select
        exact = not select.labels or (len(select.labels) == 1 and not select.types and not select.statuses)
        assert number is not None or not exact, f"an index tells: {select}"
    counted = {(t, s): sum(j.job_type == t and j.record["status"] == s for j in jobs) for t in types for s in statuses}
    assert await store.counts() == {pair: n for pair, n in counted.items() if n}


class Lists(Scenarios):
    """Lists and counts."""

    async def test_lists_and_counts_equal_the_records_after_every_change(self, world: World) -> None:
        ids = ["a", "b", "c", "d"]
        await check_lists(world, ids)
        await world.create("a", worker_job(labels="owner=ana\x1ftenant=x"))
        await world.create("b", worker_job(labels="owner=bob", unique_key="k"))
        await world.create("c", {**caller_job(labels="owner=ana"), "type": "u"})
        await world.track("d", track_job(labels="tenant=x"))
        await check_lists(world, ids)
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_report(world.op(), token, {"stalled": "slow"}, "stalled"))
        await check_lists(world, ids)
        await world.do("a", plans.plan_report(world.op(), token, {"stalled": ""}, "stalled"))
        await check_lists(world, ids)
        await world.do("a", plans.plan_report(world.op(), token, {"stalled": "slow"}, "stalled"))
        await world.do("a", plans.plan_complete(world.op(), token, None, {}))
        await world.do("b", plans.plan_cancel(world.op()))
        await check_lists(world, ids)
        await world.do("b", plans.plan_retry(world.op()))
        await world.do("c", plans.plan_update(world.op(), "failed"))
        await check_lists(world, ids)
        for job_id in ids:
            await world.do(job_id, plans.plan_delete(world.op()))
            await check_lists(world, ids)

    async def test_a_change_of_labels_or_type_moves_the_record(self, world: World) -> None:
        await world.do("a", made(world.op(), labels="owner=ana\x1ftenant=x"))
        await world.do("a", told(world.op(), ("set", "labels", "=owner=bob\x1ftenant=x"), ("set", "type", "=u")))
        await check_lists(world, ["a"])
        assert await world.store.count(Select(labels=(("owner", "ana"),))) == 0
        await world.do("a", told(world.op(), ("clear", "labels"), ("set", "stalled", "=s")))
        await check_lists(world, ["a"])
        await world.do("a", told(world.op(), ("clear", "stalled"), ("set", "status", "=archived")))
        assert [j.job_id for j in await world.store.select(Select(statuses=("archived",)), 5)] == ["a"]
        assert await world.store.counts() == {("u", "archived"): 1}

    async def test_labels_are_compared_whole(self, world: World) -> None:
        for job_id, labels in (("a", "k=v"), ("b", "k=v=w"), ("c", "k=V"), ("d", "kk=v"), ("e", "k=\u00e9 *?[x]%_")):
            await world.create(job_id, worker_job(labels=labels))
        for pair, job_id in ((("k", "v"), "a"), (("k", "v=w"), "b"), (("k", "V"), "c"), (("k", "\u00e9 *?[x]%_"), "e")):
            select = Select(labels=(pair,))
            assert [j.job_id for j in await world.store.select(select, 5)] == [job_id]
            assert await world.store.count(select) == 1

    async def test_several_types_or_statuses_are_alternatives(self, world: World) -> None:
        for number, (job_type, cancelled) in enumerate(itertools.product("tuvw", (False, True))):
            await world.create(f"j{number}", {**worker_job(), "type": job_type})
            if cancelled:
                await world.do(f"j{number}", plans.plan_cancel(world.op()))
            await world.tick()
        select = Select(types=("t", "v", "w"), statuses=("pending", "cancelled"))
        assert [j.job_id for j in await world.store.select(select, 3)] == ["j7", "j6", "j5"]
        assert await world.store.count(select) == 6
        assert [j.job_id for j in await world.store.select(Select(statuses=("cancelled",)), 9)] == [
            "j7",
            "j5",
            "j3",
            "j1",
        ]
        assert await world.store.count(Select(types=("t", "t"))) == 2
        assert len(await world.store.select(Select(types=("t", "t")), 9)) == 2

    async def test_filters_come_before_the_limit(self, world: World) -> None:
        await world.create("wanted", worker_job(labels="owner=ana"))
        await world.tick()
        writes = [Write(f"j{n:03d}", plans.plan_create(worker_job(labels="owner=bob"), world.op())) for n in range(60)]
        await world.store.apply(writes)
        assert [j.job_id for j in await world.store.select(Select(labels=(("owner", "ana"),)), 1)] == ["wanted"]
        both = Select(labels=(("owner", "bob"),), types=("t",), statuses=("pending",))
        assert [j.job_id for j in await world.store.select(both, 2)] == ["j059", "j058"]
        assert await world.store.select(ALL, 0) == []

    async def test_a_cursor_walk_shows_each_job_once(self, world: World) -> None:
        same = "1700000000000000"
        for number in range(7):
            await world.do(f"same{number}", made(world.op(), created=same))
        for number in range(6):
            await world.create(f"t{number % 3}-{number}", {**worker_job(labels="owner=ana"), "type": f"t{number % 3}"})
            await world.tick()
        everything = [j.job_id for j in await world.store.select(ALL, 100)]
        assert len(everything) == 13
        assert everything[6:] == [f"same{n}" for n in range(6, -1, -1)]
        for select, right in (
            (ALL, everything),
            (Select(types=("t0", "t2")), ["t2-5", "t0-3", "t2-2", "t0-0"]),
            (Select(labels=(("owner", "ana"),)), [i for i in everything if i.startswith("t")]),
            (Select(statuses=("pending",)), everything),
        ):
            for step in (1, 2, 5):
                walk: list[str] = []
                after = None
                while page := await world.store.select(select, step, after):
                    walk += [j.job_id for j in page]
                    after = position(page[-1])
                assert walk == right, (select, step)

    async def test_a_cursor_outlives_the_job_that_it_points_at_and_those_that_move(self, world: World) -> None:
        for name in "abcdef":
            await world.create(name, worker_job())
            await world.tick()
        page = await world.store.select(Select(statuses=("pending",)), 2)
        assert [j.job_id for j in page] == ["f", "e"]
        await world.do("e", plans.plan_delete(world.op()))
        await world.do("f", plans.plan_cancel(world.op()))
        await world.do("c", plans.plan_cancel(world.op()))
        await world.create("g", worker_job())
        rest = await world.store.select(Select(statuses=("pending",)), 9, position(page[-1]))
        assert [j.job_id for j in rest] == ["d", "b", "a"]

    async def test_times_of_creation_bound_a_list(self, world: World) -> None:
        for name, created in (("a", "1000"), ("b", "2000"), ("c", "3000")):
            await world.do(name, made(world.op(), created=created, labels="x=y", stalled="s"))
        for extra in ({}, {"types": ("t",)}, {"labels": (("x", "y"),)}, {"stalled": True}):
            for after, before, right in (
                (2000, None, ["c", "b"]),
                (None, 2000, ["a"]),
                (1000, 3000, ["b", "a"]),
                (2001, 3000, []),
                (None, None, ["c", "b", "a"]),
            ):
                select = Select(created_after=after, created_before=before, **extra)
                assert [j.job_id for j in await world.store.select(select, 9)] == right, select
        assert await world.store.count(Select(created_after=1)) is None

    async def test_what_no_index_counts_is_none(self, world: World) -> None:
        await world.create("a", worker_job(labels="x=y\x1fz=z"))
        store = world.store
        assert await store.count(Select(labels=(("x", "y"), ("z", "z")))) is None
        assert await store.count(Select(labels=(("x", "y"),), types=("t",))) is None
        assert await store.count(Select(labels=(("x", "y"),), stalled=True)) is None
        assert await store.count(Select(labels=(("x", "y"),))) == 1
        assert await store.count(ALL) == 1

    async def test_a_damaged_record_makes_no_list_fail(self, world: World) -> None:
        damage = {
            "progress": "nan", "metadata": "{", "labels": "x", "priority": "high", "stages": "[1]", "result": '"\\ud800"',
            "failure": "[]", "item_counts": "3", "started": "never", "eta": "{}",
        }  # fmt: skip
        await world.do("good", made(world.op()))
        await world.do("bad", made(world.op(), **damage))
        await world.do("deep", made(world.op(), result="[" * 100_000))
        jobs = await world.store.select(ALL, 9)
        assert {j.job_id for j in jobs} == {"good", "bad", "deep"}
        shown = {j.job_id: j.to_dict() for j in jobs}
        assert {"progress", "metadata", "priority", "stages", "labels", "failure"} <= set(shown["bad"]["corrupt"])
        assert shown["deep"]["corrupt"] == ["result"]
        assert "corrupt" not in shown["good"]
        assert all(j.to_json() for j in jobs if j.job_id != "bad")
        assert await world.store.count(ALL) == 3
