"""Lists, counts and cursors: complete, ordered, and consistent with the records."""

from __future__ import annotations

import itertools

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.transitions.change import Const
from milepost.stores.protocol import Position, Select, Write
from milepost.testing.conformance.harness import (
    Scenarios,
    StoreFixture,
    caller_job,
    change_with,
    create_record,
    token_of,
    track_job,
    worker_job,
)

ALL = Select()


def position(job: Job) -> Position:
    """Return the position of a job in a list."""
    return Position(int(job.record["created"]), job.job_id)


def matches(job: Job, select: Select) -> bool:
    """Return whether a job matches a selection, by its record alone."""
    created = int(job.record["created"])
    return (
        (not select.types or job.job_type in select.types)
        and (not select.statuses or job.record["status"] in select.statuses)
        and all(job.labels.get(k) == v for k, v in select.labels)
        and (not select.stalled or bool(job.stalled))
        and (select.created_after is None or created >= select.created_after)
        and (select.created_before is None or created < select.created_before)
    )


async def check_lists(fixture: StoreFixture, ids: list[str]) -> None:
    """Assert that every list and count matches the records of these ids, which are all that exist."""
    store = fixture.store
    jobs = [job for job in [await store.get(i) for i in ids] if job is not None]
    newest_first = sorted(jobs, key=position, reverse=True)
    types = sorted({j.job_type for j in jobs} | {"no-such-type"})
    statuses = sorted({j.record["status"] for j in jobs} | {"completed"})
    pairs = sorted({pair for j in jobs for pair in j.labels.items()} | {("owner", "missing")})
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
    """Lists, counts and cursors."""

    async def test_lists_and_counts_match_records(self, fixture: StoreFixture) -> None:
        ids = ["a", "b", "c", "d"]
        await check_lists(fixture, ids)
        await fixture.create("a", worker_job(labels="owner=ana\x1ftenant=x"))
        await fixture.create("b", worker_job(labels="owner=bob", unique_key="k"))
        await fixture.create("c", {**caller_job(labels="owner=ana"), "type": "u"})
        await fixture.track("d", track_job(labels="tenant=x"))
        await check_lists(fixture, ids)
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {"stalled": "slow"}, "stalled"))
        await check_lists(fixture, ids)
        await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {"stalled": ""}, "stalled"))
        await check_lists(fixture, ids)
        await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {"stalled": "slow"}, "stalled"))
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token, None, {}))
        await fixture.do("b", plans.plan_cancel(fixture.operation_id()))
        await check_lists(fixture, ids)
        await fixture.do("b", plans.plan_retry(fixture.operation_id()))
        await fixture.do("c", plans.plan_update(fixture.operation_id(), "failed"))
        await check_lists(fixture, ids)
        for job_id in ids:
            await fixture.do(job_id, plans.plan_delete(fixture.operation_id()))
            await check_lists(fixture, ids)

    async def test_change_of_labels_or_type_moves_record(self, fixture: StoreFixture) -> None:
        await fixture.do("a", create_record(fixture.operation_id(), labels="owner=ana\x1ftenant=x"))
        await fixture.do(
            "a",
            change_with(
                fixture.operation_id(), ("set", "labels", Const("owner=bob\x1ftenant=x")), ("set", "type", Const("u"))
            ),
        )
        await check_lists(fixture, ["a"])
        assert await fixture.store.count(Select(labels=(("owner", "ana"),))) == 0
        await fixture.do("a", change_with(fixture.operation_id(), ("clear", "labels"), ("set", "stalled", Const("s"))))
        await check_lists(fixture, ["a"])
        await fixture.do(
            "a", change_with(fixture.operation_id(), ("clear", "stalled"), ("set", "status", Const("archived")))
        )
        assert [j.job_id for j in await fixture.store.select(Select(statuses=("archived",)), 5)] == ["a"]
        assert await fixture.store.counts() == {("u", "archived"): 1}

    async def test_labels_match_exactly(self, fixture: StoreFixture) -> None:
        for job_id, labels in (("a", "k=v"), ("b", "k=v=w"), ("c", "k=V"), ("d", "kk=v"), ("e", "k=\u00e9 *?[x]%_")):
            await fixture.create(job_id, worker_job(labels=labels))
        for pair, job_id in ((("k", "v"), "a"), (("k", "v=w"), "b"), (("k", "V"), "c"), (("k", "\u00e9 *?[x]%_"), "e")):
            select = Select(labels=(pair,))
            assert [j.job_id for j in await fixture.store.select(select, 5)] == [job_id]
            assert await fixture.store.count(select) == 1

    async def test_types_and_statuses_are_alternatives(self, fixture: StoreFixture) -> None:
        for number, (job_type, cancelled) in enumerate(itertools.product("tuvw", (False, True))):
            await fixture.create(f"j{number}", {**worker_job(), "type": job_type})
            if cancelled:
                await fixture.do(f"j{number}", plans.plan_cancel(fixture.operation_id()))
            await fixture.tick()
        select = Select(types=("t", "v", "w"), statuses=("pending", "cancelled"))
        assert [j.job_id for j in await fixture.store.select(select, 3)] == ["j7", "j6", "j5"]
        assert await fixture.store.count(select) == 6
        assert [j.job_id for j in await fixture.store.select(Select(statuses=("cancelled",)), 9)] == [
            "j7",
            "j5",
            "j3",
            "j1",
        ]
        assert await fixture.store.count(Select(types=("t", "t"))) == 2
        assert len(await fixture.store.select(Select(types=("t", "t")), 9)) == 2

    async def test_filters_apply_before_limit(self, fixture: StoreFixture) -> None:
        await fixture.create("wanted", worker_job(labels="owner=ana"))
        await fixture.tick()
        writes = [
            Write(f"j{n:03d}", plans.plan_create(worker_job(labels="owner=bob"), fixture.operation_id()))
            for n in range(60)
        ]
        await fixture.store.apply(writes)
        assert [j.job_id for j in await fixture.store.select(Select(labels=(("owner", "ana"),)), 1)] == ["wanted"]
        both = Select(labels=(("owner", "bob"),), types=("t",), statuses=("pending",))
        assert [j.job_id for j in await fixture.store.select(both, 2)] == ["j059", "j058"]
        assert await fixture.store.select(ALL, 0) == []

    async def test_cursor_walk_returns_each_job_once(self, fixture: StoreFixture) -> None:
        same = "1700000000000000"
        for number in range(7):
            await fixture.do(f"same{number}", create_record(fixture.operation_id(), created=same))
        for number in range(6):
            await fixture.create(
                f"t{number % 3}-{number}", {**worker_job(labels="owner=ana"), "type": f"t{number % 3}"}
            )
            await fixture.tick()
        everything = [j.job_id for j in await fixture.store.select(ALL, 100)]
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
                while page := await fixture.store.select(select, step, after):
                    walk += [j.job_id for j in page]
                    after = position(page[-1])
                assert walk == right, (select, step)

    async def test_cursor_survives_deleted_and_moved_jobs(self, fixture: StoreFixture) -> None:
        for name in "abcdef":
            await fixture.create(name, worker_job())
            await fixture.tick()
        page = await fixture.store.select(Select(statuses=("pending",)), 2)
        assert [j.job_id for j in page] == ["f", "e"]
        await fixture.do("e", plans.plan_delete(fixture.operation_id()))
        await fixture.do("f", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("c", plans.plan_cancel(fixture.operation_id()))
        await fixture.create("g", worker_job())
        rest = await fixture.store.select(Select(statuses=("pending",)), 9, position(page[-1]))
        assert [j.job_id for j in rest] == ["d", "b", "a"]

    async def test_creation_times_bound_list(self, fixture: StoreFixture) -> None:
        for name, created in (("a", "1000"), ("b", "2000"), ("c", "3000")):
            await fixture.do(name, create_record(fixture.operation_id(), created=created, labels="x=y", stalled="s"))
        for extra in ({}, {"types": ("t",)}, {"labels": (("x", "y"),)}, {"stalled": True}):
            for after, before, right in (
                (2000, None, ["c", "b"]),
                (None, 2000, ["a"]),
                (1000, 3000, ["b", "a"]),
                (2001, 3000, []),
                (None, None, ["c", "b", "a"]),
            ):
                select = Select(created_after=after, created_before=before, **extra)
                assert [j.job_id for j in await fixture.store.select(select, 9)] == right, select
        assert await fixture.store.count(Select(created_after=1)) is None

    async def test_oldest_jobs_of_a_status_come_first(self, fixture: StoreFixture) -> None:
        created = {"e": "3000", "b": "2000", "a": "2000", "d": "1000", "f": "4000", "c": "500"}
        for number, (name, moment) in enumerate(created.items()):
            await fixture.do(name, create_record(fixture.operation_id(), created=moment, type=f"t{number % 3}"))
        await fixture.do("c", plans.plan_cancel(fixture.operation_id()))
        for limit in (0, 1, 3, 5, 9):
            found = await fixture.store.oldest("pending", limit)
            assert [j.job_id for j in found] == ["d", "a", "b", "e", "f"][:limit]
        assert [j.job_id for j in await fixture.store.oldest("cancelled", 9)] == ["c"]
        assert await fixture.store.oldest("running", 9) == []

    async def test_count_without_index_is_none(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(labels="x=y\x1fz=z"))
        store = fixture.store
        assert await store.count(Select(labels=(("x", "y"), ("z", "z")))) is None
        assert await store.count(Select(labels=(("x", "y"),), types=("t",))) is None
        assert await store.count(Select(labels=(("x", "y"),), stalled=True)) is None
        assert await store.count(Select(labels=(("x", "y"),))) == 1
        assert await store.count(ALL) == 1

    async def test_damaged_record_does_not_fail_lists(self, fixture: StoreFixture) -> None:
        damage = {
            "progress": "nan", "metadata": "{", "labels": "x", "priority": "high", "stages": "[1]", "result": '"\\ud800"',
            "failure": "[]", "item_counts": "3", "started": "never", "eta": "{}",
        }  # fmt: skip
        await fixture.do("good", create_record(fixture.operation_id()))
        await fixture.do("bad", create_record(fixture.operation_id(), **damage))
        await fixture.do("deep", create_record(fixture.operation_id(), result="[" * 60_000))
        jobs = await fixture.store.select(ALL, 9)
        assert {j.job_id for j in jobs} == {"good", "bad", "deep"}
        shown = {j.job_id: j.to_dict() for j in jobs}
        assert {"progress", "metadata", "priority", "stages", "labels", "failure"} <= set(shown["bad"]["corrupt"])
        assert shown["deep"]["corrupt"] == ["result"]
        assert "corrupt" not in shown["good"]
        assert all(j.to_json() for j in jobs if j.job_id != "bad")
        assert await fixture.store.count(ALL) == 3
