"""Indexes: leases per worker, owners of unique keys, start deadlines, fields indexed as pairs, queues of a type."""

from __future__ import annotations

import json

import pytest

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.transitions.change import Change
from milepost.stores.protocol import Select
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    StoreFixture,
    caller_job,
    change_with,
    create_record,
    queue_job,
    token_of,
    track_job,
    worker_job,
)
from milepost.testing.conformance.transition_matrix import fail


class Indexes(Scenarios):
    """Indexes of leases, unique keys and deadlines."""

    async def test_sibling_leases_are_counted_by_worker(self, fixture: StoreFixture) -> None:
        for name in "abcd":
            await fixture.create(name, worker_job())
        for name, worker in (("a", "w1"), ("b", "w1"), ("c", "w2"), ("d", "w1")):
            await fixture.start(name, lease=0, worker=worker)
        await fixture.do("d", plans.plan_cancel(fixture.operation_id()))
        await fixture.tick()
        due = (await fixture.store.sweep(lease=60, interval=0)).due
        assert {d.job_id: (d.kind, d.sibling_leases) for d in due if d.kind == "lease"} == {
            "a": ("lease", 2), "b": ("lease", 2), "c": ("lease", 1),
        }  # fmt: skip

    async def test_newest_record_owns_unique_key(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(unique_key="k"))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.tick()
        await fixture.create("b", worker_job(unique_key="k"))
        await fixture.do("b", plans.plan_delete(fixture.operation_id()))
        await fixture.create("c", worker_job(unique_key="k"))
        outcome = await fixture.attempt("d", plans.plan_create(worker_job(unique_key="k"), fixture.operation_id()))
        assert outcome.key_owner_id == "c"
        await fixture.do("c", plans.plan_cancel(fixture.operation_id()))
        await fixture.create("d", worker_job(unique_key="k"))

    @pytest.mark.parametrize("from_start", [False, True])
    async def test_only_newest_job_of_key_resumes(self, fixture: StoreFixture, from_start: bool) -> None:
        await fixture.create("old", worker_job(unique_key="k"))
        await fixture.do("old", plans.plan_cancel(fixture.operation_id()))
        await fixture.tick()
        await fixture.create("new", worker_job(unique_key="k"))
        await fixture.refused("old", plans.plan_retry(fixture.operation_id(), from_start=from_start))
        token = token_of(await fixture.start("new"))
        await fixture.do("new", plans.plan_complete(fixture.operation_id(), token, None, {}))
        await fixture.refused("old", plans.plan_retry(fixture.operation_id(), from_start=from_start))
        await fixture.do("new", plans.plan_delete(fixture.operation_id()))
        await fixture.do("old", plans.plan_retry(fixture.operation_id(), from_start=from_start))
        outcome = await fixture.attempt("other", plans.plan_create(worker_job(unique_key="k"), fixture.operation_id()))
        assert outcome.key_owner_id == "old"

    async def test_tracked_job_is_resumed_by_key(self, fixture: StoreFixture) -> None:
        job = await fixture.track("a", track_job(unique_key="k"))
        for end in ("", "failed", "cancelled"):
            if end == "failed":
                await fixture.do("a", fail(fixture.operation_id(), token_of(job)))
            elif end == "cancelled":
                await fixture.do(
                    "a", plans.plan_self_cancel(fixture.operation_id(), token_of(job), {}, by="ana", why="")
                )
            outcome = await fixture.attempt("b", _tracked(fixture))
            assert (outcome.accepted, outcome.key_owner_id) == (False, "a")
            if end:
                job = await fixture.made("a", _reopened(fixture))
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token_of(job), None, {}))
        await fixture.refused("a", _reopened(fixture))
        await fixture.tick()
        job = await fixture.made("b", _tracked(fixture))
        await fixture.do("b", plans.plan_complete(fixture.operation_id(), token_of(job), None, {}))

    async def test_late_duplicate_of_resume_is_refused(self, fixture: StoreFixture) -> None:
        """It resumed a job that had run and ended again, in a run that no process had."""
        seen = await fixture.track("a", track_job(unique_key="k"), lease=0)
        late = [_reopened(fixture, seen=seen)]
        job = await fixture.made("a", _reopened(fixture, seen=seen, lease=0))
        await fixture.refused("a", late[0])
        seen = await fixture.made("a", fail(fixture.operation_id(), token_of(job)))
        await fixture.refused("a", late[0])
        late.append(_reopened(fixture, seen=seen))
        job = await fixture.made("a", _reopened(fixture, seen=seen))
        await fixture.do("a", fail(fixture.operation_id(), token_of(job)))
        for change in late:
            await fixture.refused("a", change)

    async def test_older_tracked_job_of_key_is_not_resumed(self, fixture: StoreFixture) -> None:
        job = await fixture.track("old", track_job(unique_key="k"))
        await fixture.do("old", fail(fixture.operation_id(), token_of(job)))
        await fixture.tick()
        await fixture.create("new", worker_job(unique_key="k"))
        await fixture.refused("old", _reopened(fixture))
        await fixture.do("new", plans.plan_delete(fixture.operation_id()))
        await fixture.do("old", _reopened(fixture))

    async def test_resume_waits_for_draining_key(self, fixture: StoreFixture) -> None:
        await fixture.do("x", create_record(fixture.operation_id(), unique_key="k"))
        await fixture.do("x", change_with(fixture.operation_id(), ("take", 0, 1), ("stop",), values=("n", str(LONG))))
        stopping = (await fixture.store.draining_leases())[0][1]
        await fixture.do("x", plans.plan_delete(fixture.operation_id()))
        for status, leased in (("running", True), ("failed", False)):
            job = await fixture.made(
                status, create_record(fixture.operation_id(), status, run_by="track", unique_key="k", **_times(status))
            )
            if leased:
                job = await fixture.made(status, change_with(fixture.operation_id(), ("take", 0, 1), values=("n", "0")))
            dead = job.record.get("token", "-")
            for plan in (_reopened(fixture), _reopened(fixture, dead)):
                await fixture.refused(status, plan)
            await fixture.do(status, plans.plan_delete(fixture.operation_id()))
        assert ("x", stopping) in [(job_id, token) for job_id, token, _ in await fixture.store.draining_leases()]

    async def test_newest_crash_reports_are_kept(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(max_attempts="1000"))
        for number in range(20):
            token = token_of(await fixture.start("a"))
            failure = f'{{"kind":"error","number":{number},"message":"{"m" * 60_000}"}}'
            change = plans.plan_fail(fixture.operation_id(), token, error="e", failure=failure, report={}, delay=0)
            await fixture.do("a", change)
        record = (await fixture.job("a")).record
        kept = [record.get(name) for name in ("failures_before", "failures")]
        found = json.loads("[" + ",".join(text for text in kept if text) + "]")
        assert [one["number"] for one in found] == list(range(20 - len(found), 20))
        assert 128 * 1024 < sum(len(text or "") for text in kept) < 2 * 128 * 1024 + 2 * 61_000

    async def test_start_deadline_is_indexed_until_start_or_end(self, fixture: StoreFixture) -> None:
        for run_by, fields in (("w", worker_job(not_after="5")), ("e", queue_job(not_after="6"))):
            await fixture.create(run_by, fields)
        later = str(await fixture.store.now() + 3_600_000_000)
        await fixture.create("x", queue_job(not_after=later))
        found = await fixture.store.sweep(lease=3600, interval=0)
        assert [(d.kind, d.job_id) for d in found.due] == [("deadline", "w"), ("deadline", "e")]
        await fixture.do("w", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("e", plans.plan_expire(fixture.operation_id(), error="late", failure='{"kind":"expired"}'))
        assert (await fixture.store.sweep(lease=3600, interval=0)).due == []

    async def test_start_deadline_ignores_started_job(self, fixture: StoreFixture) -> None:
        await fixture.create("c", caller_job(not_after="5"))
        assert [d.kind for d in (await fixture.store.sweep(lease=3600, interval=0)).due] == ["deadline"]
        await fixture.do("c", plans.plan_update(fixture.operation_id(), "running"))
        assert (await fixture.store.sweep(lease=3600, interval=0)).due == []
        await fixture.do("c", plans.plan_update(fixture.operation_id(), None, progress="0.5"))
        assert (await fixture.store.sweep(lease=3600, interval=0)).due == []


def _tracked(fixture: StoreFixture) -> Change:
    return plans.plan_track(track_job(unique_key="k"), fixture.operation_id(), nonce=fixture.nonce(), lease=LONG)


def _reopened(fixture: StoreFixture, dead: str | None = None, seen: Job | None = None, lease: int = LONG) -> Change:
    names = {} if seen is None else {name: seen.record.get(name, "") for name in ("version", "token")}
    return plans.plan_resume(
        fixture.operation_id(), nonce=fixture.nonce(), lease=lease, worker="w1", failure="{}", dead=dead, **names
    )


def _times(status: str) -> dict[str, str]:
    return {"started": "2000000000000000"} if status == "running" else {"completed": "2000000000000000"}


GPU = "t@gpu"


def gpu_job() -> dict[str, str]:
    """Return the fields of a worker job of type ``t`` in the queue ``gpu``."""
    return worker_job(GPU, slot="t", ready_name=GPU, labels=":queue=gpu")


class Placement(Scenarios):
    """Indexed fields and queues."""

    async def test_indexed_field_finds_and_counts_its_jobs(self, fixture: StoreFixture) -> None:
        for name in "xy":
            await fixture.create(name, caller_job())
        await fixture.create("a", worker_job(labels=":group=g\x1f:after=job:x\x1f:after=job:y\x1fowner=ana"))
        await fixture.tick()
        await fixture.create("b", caller_job(labels=":group=g\x1f:parent_id=a"))
        await fixture.create("c", worker_job(labels="owner=ana"))
        job = await fixture.job("a")
        assert (job.group, job.after, job.labels, job.parent_id) == ("g", ("job:x", "job:y"), {"owner": "ana"}, None)
        found = {
            (":group", "g"): ["b", "a"],
            (":parent_id", "a"): ["b"],
            (":after", "job:y"): ["a"],
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
