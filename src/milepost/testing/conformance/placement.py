"""Placement: fields that are indexed as pairs, and queues of their own under the limit of their type."""

from __future__ import annotations

from milepost.core import transitions as plans
from milepost.stores.protocol import Select
from milepost.testing.conformance.harness import Scenarios, StoreFixture, caller_job, token_of, worker_job

GPU = "t@gpu"


def gpu_job() -> dict[str, str]:
    """Return the fields of a worker job of type ``t`` in the queue ``gpu``."""
    return worker_job(GPU, slot="t", ready_name=GPU, labels=":queue=gpu")


class Placement(Scenarios):
    """Indexed fields and queues."""

    async def test_indexed_field_finds_and_counts_its_jobs(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(labels=":group=g\x1f:after=job:x\x1f:after=group:h\x1fowner=ana"))
        await fixture.tick()
        await fixture.create("b", caller_job(labels=":group=g\x1f:parent_id=a"))
        await fixture.create("c", worker_job(labels="owner=ana"))
        job = await fixture.job("a")
        assert (job.group, job.after, job.labels, job.parent_id) == ("g", ("job:x", "group:h"), {"owner": "ana"}, None)
        found = {
            (":group", "g"): ["b", "a"],
            (":parent_id", "a"): ["b"],
            (":after", "group:h"): ["a"],
            (":group", "other"): [],
        }
        for pair, ids in found.items():
            select = Select(labels=(pair,))
            assert [one.job_id for one in await fixture.store.select(select, 10)] == ids
            assert await fixture.store.count(select) == len(ids)
        both = Select(labels=((":group", "g"), ("owner", "ana")))
        assert [one.job_id for one in await fixture.store.select(both, 10)] == ["a"]
        await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        assert await fixture.store.count(Select(labels=((":group", "g"),))) == 1

    async def test_returned_job_is_claimed_from_its_queue_again(self, fixture: StoreFixture) -> None:
        await fixture.create("a", gpu_job())
        assert await fixture.claim(["t"]) == []
        (job,) = await fixture.claim([GPU])
        assert (job.queue, job.limit_key) == ("gpu", "t")
        await fixture.do("a", plans.plan_release(fixture.operation_id(), token_of(job), {}))
        assert await fixture.claim(["t"]) == []
        (job,) = await fixture.claim([GPU])
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token_of(job), "cooperative", confirmed=True))
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        assert [one.job_id for one in await fixture.claim([GPU])] == ["a"]

    async def test_limit_of_type_counts_all_its_queues(self, fixture: StoreFixture) -> None:
        for name in ("a", "b"):
            await fixture.create(name, gpu_job())
            await fixture.create(f"{name}2", worker_job("t"))
        await fixture.store.set_limit("t", 3, False)
        assert len(await fixture.claim({"t": None, GPU: None}, most=4)) == 3
        assert await fixture.claim([GPU]) == []
        await fixture.store.set_limit("t", None, False)
        assert await fixture.claim({"t": 3, GPU: 3}, most=4) == []
        assert len(await fixture.claim({"t": 4, GPU: 4}, most=4)) == 1

    async def test_paused_type_is_paused_in_all_its_queues(self, fixture: StoreFixture) -> None:
        await fixture.create("a", gpu_job())
        await fixture.store.set_limit("t", None, True)
        assert await fixture.claim([GPU]) == []
        await fixture.store.set_limit("t", None, False)
        assert [job.job_id for job in await fixture.claim([GPU])] == ["a"]
