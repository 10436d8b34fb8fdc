"""Dispatch of pending jobs to external task queues."""

from __future__ import annotations

from milepost.core import transitions as plans
from milepost.testing.conformance.harness import LONG, Scenarios, StoreFixture, caller_job, queue_job, token_of

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
