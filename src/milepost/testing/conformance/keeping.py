"""Batches of writes, and what a store must keep exactly as it was given."""

from __future__ import annotations

import pytest

from milepost.core import lifecycle as plans
from milepost.core.job import Job
from milepost.stores.protocol import Claim, Write
from milepost.testing.conformance.harness import (
    Scenarios,
    World,
    caller_job,
    token_of,
    worker_job,
)
from milepost.testing.conformance.runs import ENDS


class Batches(Scenarios):
    """Several writes in one round trip: each is a change of its own."""

    async def test_a_refused_write_in_the_middle_stops_nothing(self, world: World) -> None:
        await world.create("a", worker_job())
        await world.create("b", caller_job())
        token = token_of(await world.start("a"))
        answer = await world.store.apply(
            [
                Write("a", plans.plan_report(world.op(), token, {"progress": "0.1"})),
                Write("b", plans.plan_retry(world.op())),
                Write("nobody", plans.plan_cancel(world.op())),
                Write("a", plans.plan_report(world.op(), "1:forged", {"progress": "0.9"})),
                Write("a", plans.plan_report(world.op(), token, {"progress": "0.2"})),
                Write("c", plans.plan_create(worker_job(), world.op())),
            ]
        )
        assert [o.accepted for o in answer.outcomes] == [True, False, False, False, True, True]
        assert [_status(o.job) for o in answer.outcomes] == [
            "running",
            "pending",
            None,
            "running",
            "running",
            "pending",
        ]
        assert (await world.job("a")).progress == 0.2
        assert [e.progress for e in await world.store.events("a") if e.kind == "progress"] == []
        assert (await world.job("a")).version == 4

    async def test_writes_come_in_order_and_before_the_claim(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        writes = [
            Write("a", plans.plan_complete(world.op(), token, "1", {})),
            Write("b", plans.plan_create(worker_job(), world.op())),
            Write("c", plans.plan_create(worker_job(priority="5"), world.op())),
        ]
        claim = Claim("w1", {"q": 1}, world.starts(2), world.op())
        answer = await world.store.apply(writes, claim)
        assert all(o.accepted for o in answer.outcomes)
        assert [j.job_id for j in answer.claimed] == ["c"], "the finished run gave its slot back, the limit is one"

    async def test_an_answer_comes_only_where_it_was_asked_for(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        quiet = [Write("a", plans.plan_report(world.op(), t, {}), answer=False) for t in (token, "1:forged")]
        accepted, refused = (await world.store.apply(quiet)).outcomes
        assert (accepted.accepted, accepted.job) == (True, None)
        assert refused.job is not None, "a refusal always carries the record"

    async def test_nothing_is_an_answer_to_nothing(self, world: World) -> None:
        answer = await world.store.apply([])
        assert (answer.outcomes, answer.claimed) == ([], [])

    async def test_many_writes_at_once(self, world: World) -> None:
        writes = [Write(f"j{n:04d}", plans.plan_create(worker_job(), world.op())) for n in range(300)]
        assert all(o.accepted for o in (await world.store.apply(writes)).outcomes)
        assert await world.store.counts() == {("t", "pending"): 300}
        ids = [j.job_id for j in await world.claim(most=300)]
        assert ids == sorted(ids)
        assert len(ids) == 300


class Keeping(Scenarios):
    """What a store must not lose or change."""

    async def test_fields_that_are_not_known_are_kept(self, world: World) -> None:
        await world.create("a", worker_job(from_a_later_release='{"deep":[1]}', zz="\x1f=?"))
        for end in ("failed", "completed"):
            token = token_of(await world.start("a"))
            job = await world.made("a", ENDS[end](world.op(), token))
            assert (job.record["from_a_later_release"], job.record["zz"]) == ('{"deep":[1]}', "\x1f=?")
            if end == "failed":
                job = await world.made("a", plans.plan_retry(world.op()))
                assert job.record["zz"] == "\x1f=?"

    async def test_json_comes_back_byte_for_byte(self, world: World) -> None:
        for number, text in enumerate(
            ("[]", "{}", "0", '""', "false", "12345678901234567890", "1.10", '{"b":1,"a":[]}')
        ):
            await world.create(f"a{number}", caller_job(metadata=text))
            job = await world.made(f"a{number}", plans.plan_update(world.op(), "completed", result=text))
            assert (job.record["metadata"], job.record["result"]) == (text, text)
            stored = await world.job(f"a{number}")
            assert (stored.record["metadata"], stored.record["result"]) == (text, text)
            assert stored.to_json() == job.to_json()

    async def test_a_large_result_is_kept_whole(self, world: World) -> None:
        await world.create("a", caller_job())
        text = '"' + "x" * (1 << 20) + '"'
        await world.do("a", plans.plan_update(world.op(), "completed", result=text))
        assert (await world.job("a")).record["result"] == text

    @pytest.mark.parametrize(
        "job_id", ["a", "A.b_c:d-e", "x" * 128, "..", "00000000-0000-7000-8000-000000000000", "%s"]
    )
    async def test_any_id_is_only_a_name(self, world: World, job_id: str) -> None:
        await world.create(job_id, worker_job())
        await world.create("other", worker_job())
        token = token_of(await world.start(job_id))
        await world.do(job_id, plans.plan_complete(world.op(), token, None, {}))
        assert (await world.job(job_id)).job_id == job_id
        assert [e.job_id for e in await world.store.events(job_id)] == [job_id] * 3
        await world.do(job_id, plans.plan_delete(world.op()))
        assert await world.store.get(job_id) is None
        assert (await world.job("other")).status.value == "pending"

    async def test_a_refusal_names_the_holder_of_the_key(self, world: World) -> None:
        await world.create("a", worker_job(unique_key="k"))
        outcome = await world.attempt("b", plans.plan_create(worker_job(unique_key="k"), world.op()))
        assert (outcome.accepted, outcome.job, outcome.holder) == (False, None, "a")
        outcome = await world.attempt("a", plans.plan_create(worker_job(unique_key="k"), world.op()))
        assert (outcome.accepted, _status(outcome.job)) == (False, "pending")
        await world.do("a", plans.plan_cancel(world.op()))
        await world.create("b", worker_job(unique_key="k"))
        outcome = await world.attempt("c", plans.plan_create(worker_job(unique_key="k"), world.op()))
        assert outcome.holder == "b"

    async def test_a_deleted_job_is_gone_with_all_that_belongs_to_it(self, world: World) -> None:
        await world.create("a", worker_job(unique_key="k", labels="owner=ana", stalled="s"))
        await world.do("a", plans.plan_delete(world.op()))
        await world.refused("a", plans.plan_delete(world.op()))
        assert await world.store.get("a") is None
        assert await world.store.events("a") == []
        assert await world.store.counts() == {}
        assert await world.claim() == []
        await world.create("b", worker_job(unique_key="k"))


def _status(job: Job | None) -> str | None:
    return job.status.value if job is not None else None
