"""Batches of writes, and values that a store must return unchanged."""

from __future__ import annotations

import pytest

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.stores.protocol import Claim, Write
from milepost.testing.conformance.harness import (
    Scenarios,
    StoreFixture,
    caller_job,
    token_of,
    worker_job,
)
from milepost.testing.conformance.runs import ENDS


class Batches(Scenarios):
    """Several independent writes in one round trip."""

    async def test_refused_write_does_not_stop_batch(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.create("b", caller_job())
        token = token_of(await fixture.start("a"))
        answer = await fixture.store.apply(
            [
                Write("a", plans.plan_report(fixture.operation_id(), token, {"progress": "0.1"})),
                Write("b", plans.plan_retry(fixture.operation_id())),
                Write("missing", plans.plan_cancel(fixture.operation_id())),
                Write("a", plans.plan_report(fixture.operation_id(), "1:forged", {"progress": "0.9"})),
                Write("a", plans.plan_report(fixture.operation_id(), token, {"progress": "0.2"})),
                Write("c", plans.plan_create(worker_job(), fixture.operation_id())),
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
        assert (await fixture.job("a")).progress == 0.2
        assert [e.progress for e in await fixture.store.events("a") if e.kind == "progress"] == []
        assert (await fixture.job("a")).version == 4

    async def test_writes_apply_in_order_before_claim(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        writes = [
            Write("a", plans.plan_complete(fixture.operation_id(), token, "1", {})),
            Write("b", plans.plan_create(worker_job(), fixture.operation_id())),
            Write("c", plans.plan_create(worker_job(priority="5"), fixture.operation_id())),
        ]
        claim = Claim("w1", {"q": 1}, fixture.starts(2), fixture.operation_id())
        answer = await fixture.store.apply(writes, claim)
        assert all(o.accepted for o in answer.outcomes)
        assert [j.job_id for j in answer.claimed] == ["c"], "the finished run freed its slot, and the limit is one"

    async def test_job_is_returned_only_when_requested(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        quiet = [
            Write("a", plans.plan_report(fixture.operation_id(), t, {}), answer=False) for t in (token, "1:forged")
        ]
        accepted, refused = (await fixture.store.apply(quiet)).outcomes
        assert (accepted.accepted, accepted.job) == (True, None)
        assert refused.job is not None, "a refusal always returns the record"

    async def test_empty_apply_returns_nothing(self, fixture: StoreFixture) -> None:
        answer = await fixture.store.apply([])
        assert (answer.outcomes, answer.claimed) == ([], [])

    async def test_large_batch_applies_every_write(self, fixture: StoreFixture) -> None:
        writes = [Write(f"j{n:04d}", plans.plan_create(worker_job(), fixture.operation_id())) for n in range(300)]
        assert all(o.accepted for o in (await fixture.store.apply(writes)).outcomes)
        assert await fixture.store.counts() == {("t", "pending"): 300}
        ids = [j.job_id for j in await fixture.claim(most=300)]
        assert ids == sorted(ids)
        assert len(ids) == 300


class RoundTrip(Scenarios):
    """Values that a store must return unchanged."""

    async def test_unknown_fields_are_kept(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(from_a_later_release='{"deep":[1]}', zz="\x1f=?"))
        for end in ("failed", "completed"):
            token = token_of(await fixture.start("a"))
            job = await fixture.made("a", ENDS[end](fixture.operation_id(), token))
            assert (job.record["from_a_later_release"], job.record["zz"]) == ('{"deep":[1]}', "\x1f=?")
            if end == "failed":
                job = await fixture.made("a", plans.plan_retry(fixture.operation_id()))
                assert job.record["zz"] == "\x1f=?"

    async def test_json_is_kept_byte_for_byte(self, fixture: StoreFixture) -> None:
        for number, text in enumerate(
            ("[]", "{}", "0", '""', "false", "12345678901234567890", "1.10", '{"b":1,"a":[]}')
        ):
            await fixture.create(f"a{number}", caller_job(metadata=text))
            job = await fixture.made(f"a{number}", plans.plan_update(fixture.operation_id(), "completed", result=text))
            assert (job.record["metadata"], job.record["result"]) == (text, text)
            stored = await fixture.job(f"a{number}")
            assert (stored.record["metadata"], stored.record["result"]) == (text, text)
            assert stored.to_json() == job.to_json()

    async def test_large_result_is_kept(self, fixture: StoreFixture) -> None:
        await fixture.create("a", caller_job())
        text = '"' + "x" * (1 << 20) + '"'
        await fixture.do("a", plans.plan_update(fixture.operation_id(), "completed", result=text))
        assert (await fixture.job("a")).record["result"] == text

    @pytest.mark.parametrize(
        "job_id", ["a", "A.b_c:d-e", "x" * 128, "..", "00000000-0000-7000-8000-000000000000", "%s"]
    )
    async def test_any_job_id_is_accepted(self, fixture: StoreFixture, job_id: str) -> None:
        await fixture.create(job_id, worker_job())
        await fixture.create("other", worker_job())
        token = token_of(await fixture.start(job_id))
        await fixture.do(job_id, plans.plan_complete(fixture.operation_id(), token, None, {}))
        assert (await fixture.job(job_id)).job_id == job_id
        assert [e.job_id for e in await fixture.store.events(job_id)] == [job_id] * 3
        await fixture.do(job_id, plans.plan_delete(fixture.operation_id()))
        assert await fixture.store.get(job_id) is None
        assert (await fixture.job("other")).status.value == "pending"

    async def test_refusal_names_key_owner(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(unique_key="k"))
        outcome = await fixture.attempt("b", plans.plan_create(worker_job(unique_key="k"), fixture.operation_id()))
        assert (outcome.accepted, outcome.job, outcome.key_owner_id) == (False, None, "a")
        outcome = await fixture.attempt("a", plans.plan_create(worker_job(unique_key="k"), fixture.operation_id()))
        assert (outcome.accepted, _status(outcome.job)) == (False, "pending")
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.create("b", worker_job(unique_key="k"))
        outcome = await fixture.attempt("c", plans.plan_create(worker_job(unique_key="k"), fixture.operation_id()))
        assert outcome.key_owner_id == "b"

    async def test_delete_removes_everything_of_job(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(unique_key="k", labels="owner=ana", stalled="s"))
        await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        await fixture.refused("a", plans.plan_delete(fixture.operation_id()))
        assert await fixture.store.get("a") is None
        assert await fixture.store.events("a") == []
        assert await fixture.store.counts() == {}
        assert await fixture.claim() == []
        await fixture.create("b", worker_job(unique_key="k"))


def _status(job: Job | None) -> str | None:
    return job.status.value if job is not None else None
