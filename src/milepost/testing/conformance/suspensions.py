"""Suspended jobs: an attempt in segments."""

from __future__ import annotations

from milepost.core import transitions as plans
from milepost.core.transitions.change import Change
from milepost.testing.conformance.claims import FAR, deliver
from milepost.testing.conformance.groups import SHORT
from milepost.testing.conformance.harness import LONG, Scenarios, StoreFixture, queue_job, token_of, worker_job
from milepost.testing.conformance.runs import REPORT
from milepost.testing.conformance.transition_matrix import CRASH, fail


def _ask(fixture: StoreFixture, token: str) -> Change:
    return plans.plan_ask(fixture.operation_id(), token, version="", questions="[]", key="k", expires=None, data="{}")


class Suspensions(Scenarios):
    """The segments of an attempt."""

    async def test_segments_share_one_attempt(self, fixture: StoreFixture) -> None:
        """I34: attempts, crashes, progress and start are the same after any number of suspensions."""
        await fixture.create("a", worker_job(attempts=1, not_after=str(1 << 52)))
        job = await fixture.start("a")
        kept = ("attempt", "max_attempts", "crashes", "progress", "started_at", "stages", "message", "item_counts")
        report = {name: text for name, text in REPORT.items() if name != "eta"}
        for segment in range(1, 4):
            wakes = await fixture.store.now() + SHORT
            plan = plans.plan_suspend(fixture.operation_id(), token_of(job), report, wake_at=wakes, ran=10)
            suspended = await fixture.made("a", plan)
            assert (suspended.status.value, suspended.lease_expires_at, suspended.worker) == ("pending", None, None)
            assert (suspended.record["ran"], suspended.record["segments"]) == (str(10 * segment), str(segment))
            await fixture.refused("a", plan._replace(operation_id=fixture.operation_id()))
            assert await fixture.store.renew([("a", token_of(job))], LONG) == ["lost"]
            await fixture.until(wakes)
            (job,) = await fixture.claim()
            assert [getattr(job, name) for name in kept] == [getattr(suspended, name) for name in kept]
            assert (job.attempt, job.progress, len(job.attempts)) == (1, 0.5, 1)
        job = await fixture.made("a", fail(fixture.operation_id(), token_of(job), 0))
        assert (job.status.value, job.attempt) == ("failed", 1)

    async def test_attempt_after_a_suspended_one_starts_anew(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(attempts=2))
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_suspend(fixture.operation_id(), token, REPORT, wake_at=1, ran=10))
        (job,) = await fixture.claim()
        await fixture.do("a", fail(fixture.operation_id(), token_of(job), 0))
        job = await fixture.start("a")
        assert (job.attempt, job.progress, job.stages, len(job.attempts)) == (2, 0.0, (), 2)
        assert not {"ran", "segments"} & set(job.record)

    async def test_suspended_job_of_a_task_queue_is_dispatched_when_it_may_continue(
        self, fixture: StoreFixture
    ) -> None:
        def dispatch() -> Change:
            return plans.plan_dispatch(fixture.operation_id(), LONG)

        later = await fixture.store.now() + 3_600_000_000
        for name, wakes in (("later", later), ("a", 1)):
            await fixture.create(name, queue_job(dispatch_after="0"))
            plan = plans.plan_suspend(
                fixture.operation_id(), await deliver(fixture, name), REPORT, wake_at=wakes, ran=10
            )
            await fixture.do(name, plan)
        early = plans.plan_deliver(fixture.operation_id(), nonce="early", lease=LONG, worker="w1")
        await fixture.refused("later", early)
        await fixture.tick()
        assert (await fixture.made("later", dispatch())).record["stale"] == str(later)
        await fixture.refused("later", dispatch())
        await fixture.made("a", dispatch())
        token = await deliver(fixture, "a")
        await fixture.do("a", _ask(fixture, token))
        await fixture.do("a", plans.plan_suspend(fixture.operation_id(), token, {}, wake_at=None, ran=1, asking="k"))
        await fixture.tick()
        assert "stale" not in (await fixture.made("a", dispatch())).record
        await fixture.refused("a", dispatch())
        answer = plans.plan_answer(fixture.operation_id(), version="1", questions="[]", key="k", data="{}")
        await fixture.do("a", answer)
        await fixture.tick()
        await fixture.made("a", dispatch())
        await deliver(fixture, "a")
        job = await fixture.job("a")
        assert (job.attempt, job.progress, job.record["segments"]) == (1, 0.5, "2")

    async def test_suspended_job_of_a_worker_is_not_dispatched(self, fixture: StoreFixture) -> None:
        for name in ("sleeps", "asks"):
            await fixture.create(name, worker_job(dispatch_after="0"))
            token = token_of(await fixture.start(name))
            if name == "asks":
                await fixture.do(name, _ask(fixture, token))
                plan = plans.plan_suspend(fixture.operation_id(), token, {}, wake_at=None, ran=1, asking="k")
            else:
                later = await fixture.store.now() + 3_600_000_000
                plan = plans.plan_suspend(fixture.operation_id(), token, {}, wake_at=later, ran=1)
            await fixture.do(name, plan)
            await fixture.tick()
            await fixture.refused(name, plans.plan_dispatch(fixture.operation_id(), LONG))

    async def test_suspend_of_lost_run_is_refused(self, fixture: StoreFixture) -> None:
        """I28: a suspend is accepted only under the live token."""
        await fixture.create("a", worker_job())
        first = token_of(await fixture.start("a", lease=0))
        await fixture.do("a", plans.plan_lease_expired(fixture.operation_id(), crashes_left=2, **CRASH))
        await fixture.start("a")
        await fixture.refused("a", plans.plan_suspend(fixture.operation_id(), first, {}, wake_at=1, ran=1))

    async def test_cancelled_suspended_job_never_wakes(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        later = await fixture.store.now() + 3_600_000_000
        await fixture.do("a", plans.plan_suspend(fixture.operation_id(), token, {}, wake_at=later, ran=1))
        await fixture.refused("a", fixture.starts(1)[0])
        job = await fixture.made("a", plans.plan_cancel(fixture.operation_id(), by="ana"))
        assert job.receipt is not None
        assert (job.status.value, job.receipt.how, job.receipt.confirmed) == ("cancelled", "cooperative", True)
        assert await fixture.claim() == []
        assert not {"wake_at", "suspended"} & set(job.record)

    async def test_rejected_job_waits_for_nothing(self, fixture: StoreFixture) -> None:
        """A job that was paused or suspended while its task queue refused it had failed, and was shown as on hold, too."""
        await fixture.create("paused", queue_job(dispatch_after="0"))
        await fixture.do("paused", plans.plan_pause(fixture.operation_id(), by="ana", data="{}"))
        await fixture.create("suspended", queue_job(dispatch_after="0"))
        token = await deliver(fixture, "suspended")
        await fixture.do("suspended", plans.plan_suspend(fixture.operation_id(), token, {}, ran=1, wake_at=FAR))
        for name in ("paused", "suspended"):
            job = await fixture.made(name, plans.plan_rejected(fixture.operation_id(), error="no", failure="{}"))
            assert not {"held", "held_before", "wake_at", "suspended"} & set(job.record)
        assert await fixture.store.held_by("user:resume", 9) == []

    async def test_usage_survives_every_start(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(attempts=3))
        for attempt in range(1, 4):
            token = token_of(await fixture.start("a"))
            sums = {"usage": f'{{"usd":{attempt}000000}}'}
            await fixture.do("a", plans.plan_report(fixture.operation_id(), token, sums))
            await fixture.refused("a", plans.plan_report(fixture.operation_id(), "1:lost", {"usage": '{"usd":9}'}))
            job = await fixture.made("a", fail(fixture.operation_id(), token, 0))
            assert (job.attempt, job.usage) == (attempt, {"usd": attempt})
        job = await fixture.made("a", plans.plan_retry(fixture.operation_id(), from_start=True))
        assert (job.status.value, job.usage) == ("pending", {"usd": 3})
