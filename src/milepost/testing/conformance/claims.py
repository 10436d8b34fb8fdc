"""Claims: order, limits, schedules, the signals that wake waiting workers, and dispatch to a task queue."""

from __future__ import annotations

import asyncio
import threading

from milepost.core import transitions as plans
from milepost.core.transitions.change import Change
from milepost.stores.protocol import Write
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    StoreFixture,
    apply_blocking,
    caller_job,
    queue_job,
    token_of,
    worker_job,
)
from milepost.testing.conformance.transition_matrix import FAILURE, fail

SHORT = 20_000
"""Microseconds that a scenario may wait."""


class ClaimPolicy(Scenarios):
    """Order, limits and schedules of claims."""

    async def test_claim_order_is_priority_age_id(self, fixture: StoreFixture) -> None:
        for name, priority in (
            ("d", "0"),
            ("b", "0"),
            ("low", "-5"),
            ("high", "7"),
            ("c", "0"),
            ("ten", "10"),
            ("a", "0"),
        ):
            await fixture.create(name, worker_job(priority=priority))
            await fixture.tick()
        assert [j.job_id for j in await fixture.claim(most=10)] == ["ten", "high", "d", "b", "c", "a", "low"]

    async def test_same_age_is_ordered_by_id(self, fixture: StoreFixture) -> None:
        born = {"created": str(1_700_000_000_000_000)}
        for name in ("c", "a", "d", "b"):
            await fixture.do(name, _aged(fixture, born["created"]))
        assert [j.job_id for j in await fixture.claim(most=10)] == ["a", "b", "c", "d"]

    async def test_retried_job_keeps_place_by_age(self, fixture: StoreFixture) -> None:
        for name in "abc":
            await fixture.create(name, worker_job())
            await fixture.tick()
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_release(fixture.operation_id(), token, {}))
        assert [j.job_id for j in await fixture.claim(most=3)] == ["a", "b", "c"]

    async def test_claim_starts_returned_jobs(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        before = await fixture.store.now()
        job = (await fixture.claim(worker="w7", lease=5_000_000))[0]
        assert (job.status.value, job.worker, job.attempt, job.version) == ("running", "w7", 1, 2)
        assert before + 5_000_000 <= int(job.record["lease"]) <= await fixture.store.now() + 5_000_000
        assert dict((await fixture.job("a")).record) == dict(job.record)
        assert await fixture.claim() == []

    async def test_claim_takes_only_served_queues(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job("q1"))
        await fixture.create("b", worker_job("q2"))
        await fixture.create("c", worker_job("q3", priority="9"))
        assert [j.job_id for j in await fixture.claim(["q2"], 5)] == ["b"]
        assert await fixture.claim(["nothing"], 5) == []
        assert await fixture.claim({}, 5) == []
        assert [j.job_id for j in await fixture.claim(["q1", "q3"], 5)] == ["c", "a"]

    async def test_served_queues_share_one_order(self, fixture: StoreFixture) -> None:
        for name, queue, priority in (("a", "q1", "0"), ("b", "q2", "0"), ("c", "q1", "1"), ("d", "q2", "1")):
            await fixture.create(name, worker_job(queue, priority=priority))
            await fixture.tick()
        assert [j.job_id for j in await fixture.claim(["q1", "q2"], 4)] == ["c", "d", "a", "b"]

    async def test_claim_skips_manual_and_external_jobs(self, fixture: StoreFixture) -> None:
        await fixture.create("a", caller_job())
        await fixture.create("b", queue_job())
        assert await fixture.claim(["q", "t", ""], 5) == []

    async def test_claim_by_job_id(self, fixture: StoreFixture) -> None:
        for name in "abc":
            await fixture.create(name, worker_job())
        assert [j.job_id for j in await fixture.claim(job_id="b", most=5)] == ["b"]
        assert await fixture.claim(job_id="b") == []
        assert await fixture.claim(job_id="missing") == []
        assert await fixture.claim(["other"], job_id="a") == []
        assert [j.job_id for j in await fixture.claim(most=5)] == ["a", "c"]

    async def test_claim_respects_queue_limit(self, fixture: StoreFixture) -> None:
        for number in range(4):
            await fixture.create(f"a{number}", worker_job("q1"))
            await fixture.create(f"b{number}", worker_job("q2"))
        claimed = await fixture.claim({"q1": 1, "q2": 2}, 8)
        assert sorted(j.job_id for j in claimed) == ["a0", "b0", "b1"]
        assert await fixture.claim({"q1": 1, "q2": 2}, 8, worker="w2") == []
        await fixture.do("a0", plans.plan_complete(fixture.operation_id(), token_of(claimed[0]), None, {}))
        assert [j.job_id for j in await fixture.claim({"q1": 1, "q2": 2}, 8)] == ["a1"]
        assert await fixture.claim({"q1": 0}, 8) == []

    async def test_store_limit_overrides_worker_limit(self, fixture: StoreFixture) -> None:
        for number in range(4):
            await fixture.create(f"a{number}", worker_job())
        store = fixture.store
        assert await store.limits() == {}
        await store.set_limit("q", 1, False)
        assert (await store.limits())["q"][:2] == (1, False)
        assert [j.job_id for j in await fixture.claim({"q": 3}, 4)] == ["a0"]
        await store.set_limit("q", 2, True)
        assert (await store.limits())["q"][:2] == (2, True)
        assert await fixture.claim({"q": None}, 4) == []
        await store.set_limit("q", 2, False)
        assert [j.job_id for j in await fixture.claim({"q": None}, 4)] == ["a1"]
        for below in (0, -1):
            await store.set_limit("q", below, False)
            assert await fixture.claim({"q": None}, 4) == []
        await store.set_limit("q", None, True)
        assert await fixture.claim({"q": None}, 4) == []
        await store.set_limit("q", None, False)
        assert await store.limits() == {}
        assert [j.job_id for j in await fixture.claim({"q": None}, 4)] == ["a2", "a3"]

    async def test_expired_lease_holds_slot_until_swept(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.create("b", worker_job())
        await fixture.claim({"q": 1}, lease=0)
        await fixture.tick()
        assert await fixture.claim({"q": 1}) == []
        await fixture.do(
            "a",
            plans.plan_lease_expired(fixture.operation_id(), error="", failure="{}", crash_loop="{}", crashes_left=2),
        )
        assert [j.job_id for j in await fixture.claim({"q": 1})] == ["a"]

    async def test_scheduled_job_waits_until_due(self, fixture: StoreFixture) -> None:
        due = await fixture.store.now() + SHORT
        await fixture.create("later", worker_job(not_before=str(due), priority="9"))
        await fixture.create("much_later", worker_job(not_before=str(due + 3_600_000_000)))
        await fixture.create("now", worker_job(not_before="1"))
        answer = await fixture.claiming(most=5)
        if await fixture.store.now() < due:
            assert [j.job_id for j in answer.claimed] == ["now"]
            assert answer.next_due == due
            await fixture.refused("much_later", fixture.starts(1)[0])
        await fixture.until(due)
        answer = await fixture.claiming(most=5)
        assert "later" in [j.job_id for j in [*answer.claimed, await fixture.job("later")]]
        assert (await fixture.job("later")).status.value == "running"
        assert answer.next_due == due + 3_600_000_000
        assert (await fixture.job("much_later")).status.value == "pending"

    async def test_next_due_covers_only_served_queues(self, fixture: StoreFixture) -> None:
        now = await fixture.store.now()
        await fixture.create("a", worker_job("q1", not_before=str(now + 3_600_000_000)))
        await fixture.create("b", worker_job("q2", not_before=str(now + 7_200_000_000)))
        answer = await fixture.claiming(["q1"])
        assert answer.next_due == now + 3_600_000_000
        assert now <= answer.now <= await fixture.store.now()
        assert (await fixture.claiming(["q2"])).next_due == now + 7_200_000_000
        assert (await fixture.claiming(["q1", "q2"])).next_due == now + 3_600_000_000
        assert (await fixture.claiming(["q3"])).next_due is None
        assert (await fixture.store.apply([])).next_due is None

    async def test_failed_attempt_waits_for_delay(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        before = await fixture.store.now()
        await fixture.do("a", fail(fixture.operation_id(), token, SHORT))
        due = int((await fixture.job("a")).record["not_before"])
        assert before + SHORT <= due <= await fixture.store.now() + SHORT
        await fixture.until(due)
        assert [j.attempt for j in await fixture.claim()] == [2]

    async def test_job_past_start_deadline_is_not_claimed(self, fixture: StoreFixture) -> None:
        await fixture.create("late", worker_job(not_after="1", priority="5"))
        await fixture.create("good", worker_job())
        assert [j.job_id for j in await fixture.claim(most=5)] == ["good"]
        assert (await fixture.job("late")).status.value == "pending"
        job = await fixture.made("late", plans.plan_expire(fixture.operation_id(), **FAILURE))
        assert (job.status.value, job.started_at) == ("failed", None)

    async def test_job_past_deadline_does_not_block_queue(self, fixture: StoreFixture) -> None:
        for number in range(5):
            await fixture.create(f"late{number}", worker_job(not_after="1", priority="5"))
        for number in range(3):
            await fixture.create(f"good{number}", worker_job())
        assert [j.job_id for j in await fixture.claim(most=3)] == ["good0", "good1", "good2"]

    async def test_claim_returns_at_most_its_starts(self, fixture: StoreFixture) -> None:
        for number in range(5):
            await fixture.create(f"a{number}", worker_job())
        assert await fixture.claim(most=0) == []
        assert len(await fixture.claim(most=2)) == 2
        assert len(await fixture.claim(most=9)) == 3


WOKEN = ("worker", True)
"""What a wait may return if the worker itself is woken. For a claimable job it must be True, or no job would be claimed."""


class Waking(Scenarios):
    """Signals that wake a waiting worker. The timeouts only guard against hangs."""

    async def test_submit_wakes_worker(self, fixture: StoreFixture) -> None:
        await _idle_is_woken_by(fixture, Write("a", plans.plan_create(worker_job(), fixture.operation_id())))

    async def test_released_job_wakes_worker(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of((await fixture.claim())[0])
        await _drain(fixture)
        await _idle_is_woken_by(fixture, Write("a", plans.plan_release(fixture.operation_id(), token, {})))

    async def test_cancel_of_run_wakes_its_worker(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.claim(worker="w1")
        await _drain(fixture)
        await _idle_is_woken_by(fixture, Write("a", plans.plan_cancel(fixture.operation_id())), WOKEN)

    async def test_end_of_drain_wakes_for_waiting_job(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of((await fixture.claim())[0])
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        await _drain(fixture)
        await _idle_is_woken_by(
            fixture, Write("a", plans.plan_receipt(fixture.operation_id(), token, "killed", confirmed=True))
        )

    async def test_freed_slot_wakes_for_next_job(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.create("b", worker_job())
        token = token_of((await fixture.claim({"q": 1}))[0])
        await _drain(fixture)
        await _idle_is_woken_by(fixture, Write("a", plans.plan_complete(fixture.operation_id(), token, None, {})))

    async def test_wake_wakes_named_worker(self, fixture: StoreFixture) -> None:
        await _drain(fixture)
        await fixture.store.wake("w1")
        assert await fixture.store.wait_for_work("w1", ["q"], 60.0) in WOKEN

    async def test_wait_for_work_times_out(self, fixture: StoreFixture) -> None:
        await _drain(fixture)
        assert await fixture.store.wait_for_work("w1", ["q"], 0.02) is False

    async def test_job_of_other_queue_need_not_wake(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job("q2"))
        assert await fixture.store.wait_for_work("w2", ["q2"], 60.0)


def _aged(fixture: StoreFixture, created: str) -> Change:
    from milepost.testing.conformance.harness import create_record

    return create_record(
        fixture.operation_id(), created=created, **{k: v for k, v in worker_job().items() if k != "type"}
    )


async def _drain(fixture: StoreFixture) -> None:
    """Consume all pending signals."""
    for _ in range(20):
        if not await fixture.store.wait_for_work("w1", ["q"], 0.0):
            return


async def _idle_is_woken_by(fixture: StoreFixture, write: Write, reasons: tuple[object, ...] = (True,)) -> None:
    """Assert that a change ends a `wait_for_work` that began before it, for one of some reasons."""
    if fixture.store.blocking:
        thread = threading.Thread(target=apply_blocking, args=(fixture.store, write))
        thread.start()
        try:
            assert await fixture.store.wait_for_work("w1", ["q"], 60.0) in reasons
        finally:
            thread.join()
        return
    waiting = asyncio.create_task(fixture.store.wait_for_work("w1", ["q"], 60.0))
    await asyncio.sleep(0)
    assert (await fixture.store.apply([write])).outcomes[0].accepted
    assert await waiting in reasons


FAR = 3_600_000_000


async def deliver(fixture: StoreFixture, job_id: str, lease: int = LONG) -> str:
    """Start a job as its task queue delivers it, and return the token of the run."""
    plan = plans.plan_deliver(fixture.operation_id(), nonce=fixture.nonce(), lease=lease, worker="w1")
    return token_of(await fixture.made(job_id, plan))


class Dispatching(Scenarios):
    """Pending jobs of an external task queue."""

    async def test_due_job_is_dispatched_by_one_process(self, fixture: StoreFixture) -> None:
        await fixture.create("due", queue_job(dispatch_after="0"))
        await fixture.tick()
        taken = await fixture.made("due", plans.plan_dispatch(fixture.operation_id(), FAR))
        assert int(taken.record["stale"]) > await fixture.store.now(), "and by no other process in the meantime"
        await fixture.refused("due", plans.plan_dispatch(fixture.operation_id(), FAR))

    async def test_submitter_has_time_to_dispatch_first(self, fixture: StoreFixture) -> None:
        fields = queue_job(dispatch_after="0")
        await fixture.made("fresh", plans.plan_create(fields, fixture.operation_id(), FAR))
        await fixture.tick()
        await fixture.refused("fresh", plans.plan_dispatch(fixture.operation_id(), FAR))
        await fixture.made("left", plans.plan_create(fields, fixture.operation_id(), 1))
        await fixture.tick()
        await fixture.made("left", plans.plan_dispatch(fixture.operation_id(), FAR))

    async def test_scheduled_job_is_dispatched_when_due(self, fixture: StoreFixture) -> None:
        await fixture.create("later", queue_job(dispatch_after="0"))
        token = await deliver(fixture, "later")
        await fixture.do(
            "later",
            plans.plan_fail(
                fixture.operation_id(), token, error="no", failure='{"kind":"error"}', report={}, delay=FAR
            ),
        )
        await fixture.tick()
        job = await fixture.made("later", plans.plan_dispatch(fixture.operation_id(), 1))
        assert job.record["stale"] == job.record["not_before"]

    async def test_job_with_draining_run_is_not_dispatched(self, fixture: StoreFixture) -> None:
        await fixture.create("blocked", queue_job(dispatch_after="0"))
        token = await deliver(fixture, "blocked")
        await fixture.do("blocked", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("blocked", plans.plan_retry(fixture.operation_id()))
        await fixture.tick()
        await fixture.attempt("blocked", plans.plan_dispatch(fixture.operation_id(), FAR))
        assert int((await fixture.job("blocked")).record["stale"]) <= await fixture.store.now()
        await fixture.do("blocked", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))
        job = await fixture.made("blocked", plans.plan_dispatch(fixture.operation_id(), FAR))
        assert int(job.record["stale"]) > await fixture.store.now()

    async def test_job_that_may_have_started_is_not_dispatched(self, fixture: StoreFixture) -> None:
        await fixture.create("again", queue_job(dispatch_after="0"))
        await deliver(fixture, "again")
        await fixture.do("again", plans.plan_delete(fixture.operation_id()))
        await fixture.create("again", queue_job(dispatch_after="0", not_before="1"))
        await fixture.refused("again", plans.plan_dispatch(fixture.operation_id(), FAR))

    async def test_other_jobs_are_not_dispatched(self, fixture: StoreFixture) -> None:
        for name, fields in {"now": {}, "before": {"not_before": "1"}}.items():
            await fixture.create(name, caller_job(dispatch_after="0", **fields))
            await fixture.tick()
            await fixture.refused(name, plans.plan_dispatch(fixture.operation_id(), FAR))

    async def test_dispatched_records_only_sent_version(self, fixture: StoreFixture) -> None:
        """After the message was sent the job may have run, and wait for its next attempt."""
        sent = await fixture.create("fast", queue_job(dispatch_after="0"))
        token = await deliver(fixture, "fast")
        failed = plans.plan_fail(
            fixture.operation_id(), token, error="no", failure='{"kind":"error"}', report={}, delay=0
        )
        job = await fixture.made("fast", failed)
        await fixture.refused("fast", plans.plan_dispatched(fixture.operation_id(), FAR, sent.version))
        noted = await fixture.made("fast", plans.plan_dispatched(fixture.operation_id(), FAR, job.version))
        assert int(noted.record["stale"]) > await fixture.store.now()

    async def test_undispatchable_reason_makes_one_event(self, fixture: StoreFixture) -> None:
        await fixture.create("out_of_reach", queue_job(dispatch_after="0"))
        first = await fixture.made("out_of_reach", plans.plan_undispatchable(fixture.operation_id(), 1, "no broker"))
        again = await fixture.made("out_of_reach", plans.plan_undispatchable(fixture.operation_id(), 1, "no broker"))
        other = await fixture.made("out_of_reach", plans.plan_undispatchable(fixture.operation_id(), 1, "no queue"))
        assert (first.stalled, again.version, other.version) == ("no broker", first.version, first.version + 1)
        noted = await fixture.made("out_of_reach", plans.plan_dispatched(fixture.operation_id(), FAR))
        assert noted.stalled is None

    async def test_rejected_job_fails(self, fixture: StoreFixture) -> None:
        await fixture.create("wrong", queue_job(dispatch_after="0"))
        refused = plans.plan_rejected(
            fixture.operation_id(), error="no such parameter", failure='{"kind":"bad_parameters"}'
        )
        job = await fixture.made("wrong", refused)
        assert (job.status, job.error, "stale" in job.record) == ("failed", "no such parameter", False)
        await fixture.create("runs", queue_job(dispatch_after="0"))
        await deliver(fixture, "runs")
        await fixture.refused("runs", plans.plan_rejected(fixture.operation_id(), error="no", failure="{}"))

    async def test_retry_message_replaces_stored_message(self, fixture: StoreFixture) -> None:
        await fixture.create("kept", queue_job(dispatch_after="0", queue_message="first"))
        job = await fixture.made("kept", plans.plan_dispatched(fixture.operation_id(), FAR, queue_message="second"))
        assert job.record["queue_message"] == "second"
        job = await fixture.made("kept", plans.plan_dispatched(fixture.operation_id(), FAR))
        assert job.record["queue_message"] == "second"
        token = await deliver(fixture, "kept")
        job = await fixture.made("kept", plans.plan_complete(fixture.operation_id(), token, "1", {}, "one"))
        assert ("queue_message" in job.record, job.record["queue_result"]) == (False, "one")
