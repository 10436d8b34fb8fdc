"""Batches of writes, and values of any size that a store must return unchanged."""

from __future__ import annotations

import json

import pytest

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.record_codec import LARGE, LARGE_BYTES, RESULTS, large_fields, results_prefix
from milepost.core.values import LargeValue
from milepost.stores.protocol import Claim, Select, Write
from milepost.stores.retention import purge_older
from milepost.testing.conformance.harness import (
    LONG,
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


HOUR = 3600.0


def value(size: int, letter: str = "x") -> str:
    """Return JSON text of `size` bytes."""
    return json.dumps(letter * (size - 2))


class Large(Scenarios):
    """Values above LARGE_BYTES."""

    async def test_value_at_the_limit_stays_in_its_record(self, fixture: StoreFixture) -> None:
        wide = json.dumps("é" * (LARGE_BYTES // 2), ensure_ascii=False)
        for job_id, text, is_large in (
            ("a", value(LARGE_BYTES), False),
            ("b", value(LARGE_BYTES + 1), True),
            ("c", wide, True),
        ):
            await fixture.create(job_id, caller_job())
            await fixture.made(job_id, plans.plan_update(fixture.operation_id(), "completed", result=text))
            assert (await fixture.job(job_id)).record["result"] == text
            (listed,) = [job for job in await fixture.store.select(Select(), 9) if job.job_id == job_id]
            assert bool(large_fields(listed.record)) is is_large
            assert listed.result == (LargeValue(len(text.encode())) if is_large else json.loads(text))

    @pytest.mark.parametrize("name", sorted(LARGE - {"late_result"}))
    async def test_list_shows_the_size_of_a_large_field(self, fixture: StoreFixture, name: str) -> None:
        text = value(LARGE_BYTES * 2)
        created = await fixture.create("a", {**worker_job(labels="k=v"), name: text})
        assert created.record[name] == text
        for select in (Select(), Select(labels=(("k", "v"),)), Select(("t",), ("pending",))):
            (job,) = await fixture.store.select(select, 5)
            assert large_fields(job.record) == [name]
            assert job.corrupt == ()
        assert (await fixture.job("a")).record[name] == text

    async def test_claim_leaves_large_values_where_they_are(self, fixture: StoreFixture) -> None:
        params = json.dumps({"text": "x" * 100_000})
        await fixture.create("a", worker_job(params=params))
        claim = Claim("w1", {"q": None}, fixture.starts(1), fixture.operation_id(), None, 1)
        for _ in range(2):  # the repeated claim is answered alike
            (job,) = (await fixture.store.apply([], claim)).claimed
            assert LargeValue.read(job.record["params"]) == LargeValue(len(params))
        whole = await fixture.job("a")
        assert (whole.params, whole.record["token"]) == ({"text": "x" * 100_000}, token_of(job))

    async def test_start_of_one_job_gives_its_values(self, fixture: StoreFixture) -> None:
        params = json.dumps({"text": "x" * 100_000})
        await fixture.create("a", worker_job(params=params))
        assert (await fixture.start("a")).record["params"] == params

    async def test_sweep_gives_markers(self, fixture: StoreFixture) -> None:
        await fixture.create("late", worker_job(params=value(LARGE_BYTES + 1), not_after="1"))
        await fixture.create("lost", worker_job(params=value(LARGE_BYTES + 1)))
        await fixture.start("lost", lease=0)
        await fixture.tick()
        due = (await fixture.store.sweep(lease=HOUR, interval=0)).due
        assert sorted(d.job_id for d in due) == ["late", "lost"]
        assert all(d.job is not None and large_fields(d.job.record) == ["params"] for d in due)

    async def test_checkpoint_changes_size_in_both_directions(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        for size in (10, LARGE_BYTES + 1, LARGE_BYTES + 1, LARGE_BYTES * 3, 20, LARGE_BYTES + 5):
            text = value(size, "abcdef"[size % 6])
            job = await fixture.made("a", plans.plan_checkpoint(fixture.operation_id(), token, text, {}))
            assert job.record["checkpoint"] == text
            quiet = Write("a", plans.plan_checkpoint(fixture.operation_id(), token, text + " ", {}), answer=False)
            await fixture.store.apply([quiet])
            assert (await fixture.job("a")).record["checkpoint"] == text + " "
        job = await fixture.made("a", plans.plan_complete(fixture.operation_id(), token, value(LARGE_BYTES + 9), {}))
        assert ("checkpoint" in job.record, len(job.record["result"])) == (False, LARGE_BYTES + 9)

    async def test_unchanged_values_outlast_every_other_change(self, fixture: StoreFixture) -> None:
        params, checkpoint = value(LARGE_BYTES + 1, "p"), value(LARGE_BYTES + 1, "c")
        await fixture.create("a", worker_job(params=params))
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_checkpoint(fixture.operation_id(), token, checkpoint, {}))
        await fixture.do(
            "a", plans.plan_fail(fixture.operation_id(), token, error="e", failure="{}", report={}, delay=0)
        )
        await fixture.tick()
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {"progress": "0.5"}))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))
        job = await fixture.made("a", plans.plan_retry(fixture.operation_id()))
        assert (job.record["params"], job.record["checkpoint"]) == (params, checkpoint)

    async def test_late_result_is_kept_apart(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        text = value(LARGE_BYTES + 1)
        await fixture.do(
            "a", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True, late_result=text)
        )
        (job,) = await fixture.store.select(Select(), 1)
        assert job.receipt is not None
        assert job.receipt.late_result == LargeValue(LARGE_BYTES + 1)
        assert (await fixture.job("a")).record["late_result"] == text

    async def test_stale_token_cannot_change_a_large_value(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        old = token_of(await fixture.start("a", lease=0))
        await fixture.do("a", plans.plan_checkpoint(fixture.operation_id(), old, value(LARGE_BYTES + 1, "1"), {}))
        await fixture.tick()
        await fixture.do(
            "a",
            plans.plan_lease_expired(fixture.operation_id(), error="e", failure="{}", crash_loop="{}", crashes_left=3),
        )
        await fixture.tick()
        token = token_of(await fixture.start("a"))
        mine = value(LARGE_BYTES + 1, "2")
        await fixture.do("a", plans.plan_checkpoint(fixture.operation_id(), token, mine, {}))
        for size in (10, LARGE_BYTES + 1):
            await fixture.refused("a", plans.plan_checkpoint(fixture.operation_id(), old, value(size, "3"), {}))
        assert (await fixture.job("a")).record["checkpoint"] == mine

    async def test_repeated_write_has_no_second_effect(self, fixture: StoreFixture) -> None:
        await fixture.create("a", caller_job())
        text = value(LARGE_BYTES + 1)
        change = plans.plan_update(fixture.operation_id(), "completed", result=text)
        first, again = [(await fixture.store.apply([Write("a", change)])).outcomes[0] for _ in range(2)]
        assert (first.repeated, again.repeated) == (False, True)
        assert again.job is not None
        assert again.job.record["result"] == text

    @pytest.mark.parametrize("how", ["delete", "purge"])
    async def test_removed_job_takes_its_large_values_along(self, fixture: StoreFixture, how: str) -> None:
        await fixture.create("a", worker_job(params=value(LARGE_BYTES + 1)))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        if how == "delete":
            await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        else:
            await fixture.tick()
            assert await purge_older(fixture.store, ttl=0) == 1
        await fixture.create("a", worker_job(params=f"\x1a{LARGE_BYTES + 1}"))
        assert (await fixture.job("a")).record["params"] == f"\x1a{LARGE_BYTES + 1}", "nothing is left of the first one"

    @pytest.mark.parametrize("how", ["delete", "purge"])
    @pytest.mark.parametrize(
        "job_id", ["a", "sixteen.letters.", "01a21a68-b104-796f-9871-d973f049b1b4"], ids=["short", "16 letters", "uuid"]
    )
    async def test_removed_job_takes_its_kept_results_along(self, fixture: StoreFixture, job_id: str, how: str) -> None:
        """The kept results of a failed job outlived its deletion by a month."""
        others = f"{job_id}-b", f"{job_id}0"
        for one in (job_id, *others):
            await fixture.create(one, worker_job())
            for part in ("1.0", "1.1"):
                await fixture.store.kv_put(f"{results_prefix(one)}{part}", "[]", ttl=3600)
        await fixture.do(job_id, plans.plan_cancel(fixture.operation_id()))
        if how == "delete":
            await fixture.do(job_id, plans.plan_delete(fixture.operation_id()))
        else:
            await fixture.tick()
            assert await purge_older(fixture.store, ttl=0) == 1
        left = [item.key for item in await fixture.store.kv_scan(RESULTS)]
        assert left == [f"results/{one}/{part}" for one in others for part in ("1.0", "1.1")]
        assert await fixture.store.kv_get(f"results/{job_id}/1.0") is None

    async def test_writes_of_one_batch_come_in_order(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a", lease=LONG))
        texts = [value(LARGE_BYTES + 1, "1"), value(5, "2"), value(LARGE_BYTES + 1, "3")]
        writes = [Write("a", plans.plan_checkpoint(fixture.operation_id(), token, text, {})) for text in texts]
        outcomes = (await fixture.store.apply(writes)).outcomes
        assert [o.job.record["checkpoint"] for o in outcomes if o.job is not None] == texts
        assert (await fixture.job("a")).record["checkpoint"] == texts[-1]
