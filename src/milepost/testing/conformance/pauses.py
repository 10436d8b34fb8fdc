"""Pauses of one job."""

from __future__ import annotations

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.transitions.change import Change
from milepost.stores.protocol import Write
from milepost.testing.conformance.answers import SHORT, answer, ask, suspend
from milepost.testing.conformance.harness import Scenarios, StoreFixture, token_of, worker_job
from milepost.testing.conformance.runs import REPORT


def pause(fixture: StoreFixture) -> Change:
    """Return the change that pauses a job."""
    return plans.plan_pause(fixture.operation_id(), by="ana", data="{}")


def resume(fixture: StoreFixture) -> Change:
    """Return the change that resumes it."""
    return plans.plan_resume_paused(fixture.operation_id(), data="{}")


def stopped(fixture: StoreFixture, token: str) -> Change:
    """Return the last write of a run whose code has returned after a pause."""
    return plans.plan_stopped_for_pause(fixture.operation_id(), token, REPORT, ran=7, how="cooperative")


class Pauses(Scenarios):
    """Paused jobs: no run starts until a resume, and the attempt continues after it."""

    async def test_paused_run_continues_its_attempt(self, fixture: StoreFixture) -> None:
        """I34: attempts, crashes and start are unchanged; the last report of the stopped code is kept."""
        await fixture.create("a", worker_job(attempts=1))
        job = await fixture.start("a")
        paused = await fixture.made("a", pause(fixture))
        assert (paused.status.value, paused.attempt, paused.started_at) == ("pending", 1, job.started_at)
        await fixture.refused("a", pause(fixture))
        await fixture.do("a", stopped(fixture, token_of(job)))
        await fixture.refused("a", stopped(fixture, token_of(job)))
        assert await fixture.claim() == []
        await fixture.store.sweep(lease=60.0, interval=0.0)
        assert await fixture.claim() == []
        await fixture.do("a", resume(fixture))
        await fixture.refused("a", resume(fixture))
        (again,) = await fixture.claim()
        assert (again.attempt, again.crashes, again.started_at, again.progress) == (1, 0, job.started_at, 0.5)
        assert (again.record["ran"], again.record["segments"]) == ("7", "1")

    async def test_resumed_run_waits_for_the_code_to_stop(self, fixture: StoreFixture) -> None:
        """I28: the code of two segments never overlaps."""
        await fixture.create("a", worker_job())
        job = await fixture.start("a")
        await fixture.do("a", pause(fixture))
        await fixture.do("a", resume(fixture))
        assert await fixture.claim() == []
        await fixture.refused("a", fixture.starts(1)[0])
        await fixture.do("a", stopped(fixture, token_of(job)))
        assert [one.job_id for one in await fixture.claim()] == ["a"]

    async def test_lost_run_of_a_paused_job_loses_nothing(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        job = await fixture.start("a", lease=0)
        await fixture.do("a", pause(fixture))
        await fixture.do("a", plans.plan_drain_timeout(fixture.operation_id(), token_of(job)))
        await fixture.do("a", resume(fixture))
        (again,) = await fixture.claim()
        assert (again.attempt, again.crashes) == (1, 0)

    async def test_pause_keeps_what_a_job_waits_for(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        job = await fixture.start("a")
        until = await fixture.store.now() + SHORT
        await fixture.do("a", suspend(fixture, job, wake_at=until, key=None))
        await fixture.do("a", pause(fixture))
        await fixture.do("a", answer(fixture, version="", key="other"))
        assert (await fixture.job("a")).record["wake_before"] == str(until)
        await fixture.until(until)
        assert await fixture.claim() == []
        woken = await fixture.made("a", resume(fixture))
        assert woken.record["wake_at"] == str(until)
        assert [one.job_id for one in await fixture.claim()] == ["a"]

    async def test_answer_during_a_pause_is_kept(self, fixture: StoreFixture) -> None:
        for job_id, is_answered in (("a", True), ("b", False)):
            await fixture.create(job_id, worker_job())
            job = await fixture.start(job_id)
            await fixture.do(job_id, ask(fixture, job))
            await fixture.do(job_id, suspend(fixture, job))
            await fixture.do(job_id, pause(fixture))
            await fixture.refused(job_id, answer(fixture, version="0"))
            if is_answered:
                await fixture.do(job_id, answer(fixture))
                assert await fixture.claim() == []
            resumed: Job = await fixture.made(job_id, resume(fixture))
            assert ("held" in resumed.record) is not is_answered
        assert [one.job_id for one in await fixture.claim(most=2)] == ["a"]
        await fixture.do("b", answer(fixture))
        assert [one.job_id for one in await fixture.claim()] == ["b"]

    async def test_expired_question_of_a_paused_job_takes_no_answer(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        job = await fixture.start("a")
        until = await fixture.store.now() + SHORT
        await fixture.do("a", ask(fixture, job, expires=until))
        await fixture.do("a", suspend(fixture, job, wake_at=until))
        await fixture.do("a", pause(fixture))
        await fixture.until(until)
        await fixture.refused("a", answer(fixture))

    async def test_group_that_closes_during_a_pause_releases_the_job_after_it(self, fixture: StoreFixture) -> None:
        await fixture.create("first", worker_job())
        await fixture.create("a", worker_job(labels=":after=job:first"))
        await fixture.do("a", pause(fixture))
        await fixture.do("first", plans.plan_cancel(fixture.operation_id()))
        assert await fixture.claim() == []
        await fixture.store.apply([Write("a", resume(fixture))])
        assert (await fixture.job("a")).status.value == "cancelled", "the job that it follows was cancelled"

    async def test_cancelled_paused_job_never_starts(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.do("a", pause(fixture))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.refused("a", resume(fixture))
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        assert [one.job_id for one in await fixture.claim()] == ["a"]

    async def test_cancel_keeps_that_the_code_still_runs(self, fixture: StoreFixture) -> None:
        """The receipt of a job that was paused or retried, and then cancelled, no longer said that its code still ran."""
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", pause(fixture))
        await fixture.do("a", plans.plan_overrun(fixture.operation_id(), token, '{"lines":[]}'))
        for _ in range(2):
            job = await fixture.made("a", plans.plan_cancel(fixture.operation_id()))
            assert job.receipt is not None
            assert (job.receipt.how, job.receipt.confirmed) == ("still_running", None)
            await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "already_finished", confirmed=True))
        assert [one.job_id for one in await fixture.claim()] == ["a"]
