"""Questions of a run, and the answers that wake it."""

from __future__ import annotations

from typing import Any

import pytest

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.transitions.change import Change
from milepost.testing.conformance.harness import LONG, Scenarios, StoreFixture, token_of, track_job, worker_job
from milepost.testing.conformance.transition_matrix import CRASH

SHORT = 60_000
"""Microseconds until a question expires."""


def ask(fixture: StoreFixture, job: Job, key: str = "k", *, version: str = "", expires: int | None = None) -> Change:
    """Return the change that asks a question."""
    return plans.plan_ask(
        fixture.operation_id(), token_of(job), version=version, questions="[1]", key=key, expires=expires, data="{}"
    )


def answer(fixture: StoreFixture, *, version: str = "1", key: str = "k", questions: str = "[2]") -> Change:
    """Return the change that answers it."""
    return plans.plan_answer(fixture.operation_id(), version=version, questions=questions, key=key, data="{}")


def settle(fixture: StoreFixture, job: Job, *, version: str = "1", key: str = "k") -> Change:
    """Return the change with which a run keeps what it made of a question itself."""
    return plans.plan_settle_question(
        fixture.operation_id(), token_of(job), version=version, questions="[3]", key=key, data="{}"
    )


def suspend(
    fixture: StoreFixture, job: Job, *, wake_at: int | None = None, key: str | None = "k", start: str | None = None
) -> Change:
    """Return the change that suspends a run until its question is answered."""
    token = token_of(job)
    return plans.plan_suspend(fixture.operation_id(), token, {}, wake_at=wake_at, ran=1, asking=key, start=start)


class Answers(Scenarios):
    """Answers before, while and after a job waits for them."""

    async def test_answer_wakes_the_job_that_waits_for_it(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(attempts=1))
        job = await fixture.start("a")
        await fixture.do("a", ask(fixture, job))
        suspended = await fixture.made("a", suspend(fixture, job))
        assert suspended.waiting_for is not None
        assert (suspended.waiting_for.code, suspended.waiting_for.params) == ("answer", {"key": "k"})
        assert await fixture.claim() == []
        await fixture.store.sweep(lease=60.0, interval=0.0)
        assert await fixture.claim() == []
        await fixture.refused("a", answer(fixture, version="0"))
        await fixture.do("a", answer(fixture))
        (job,) = await fixture.claim()
        assert (job.attempt, job.record["questions"], job.record["questions_version"]) == (1, "[2]", "2")
        assert not {"asking", "held", "wake_at"} & set(job.record)

    @pytest.mark.parametrize("start", [None, "1"])
    async def test_answer_during_the_unwind_wakes_the_job_at_once(
        self, fixture: StoreFixture, start: str | None
    ) -> None:
        await fixture.create("a", worker_job())
        job = await fixture.start("a")
        await fixture.do("a", ask(fixture, job))
        await fixture.do("a", answer(fixture))
        await fixture.do("a", suspend(fixture, job, start=start))
        assert [one.job_id for one in await fixture.claim()] == ["a"]

    async def test_second_answer_is_refused(self, fixture: StoreFixture) -> None:
        """I29: of two answers to one question, and of two changes that have read the same version, one is kept."""
        await fixture.create("a", worker_job())
        job = await fixture.start("a")
        await fixture.do("a", ask(fixture, job))
        await fixture.refused("a", answer(fixture, version=""))
        await fixture.do("a", answer(fixture))
        await fixture.refused("a", answer(fixture, questions="[4]"))
        await fixture.refused("a", ask(fixture, job, version="1"))
        await fixture.refused("a", settle(fixture, job, version="1", key="other"))
        assert (await fixture.job("a")).record["questions"] == "[2]"

    async def test_repeated_answer_is_applied_once(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.do("a", ask(fixture, await fixture.start("a")))
        change = answer(fixture)
        await fixture.do("a", change)
        outcome = await fixture.attempt("a", change)
        assert outcome.accepted
        assert outcome.repeated

    async def test_expired_question_takes_no_answer(self, fixture: StoreFixture) -> None:
        """I29: an answer is accepted before the deadline only, and the default of the run after it only."""
        await fixture.create("early", worker_job())
        early = await fixture.start("early")
        await fixture.do("early", ask(fixture, early, expires=await fixture.store.now() + LONG))
        await fixture.refused("early", settle(fixture, early))
        await fixture.create("a", worker_job())
        job = await fixture.start("a")
        until = await fixture.store.now() + SHORT
        await fixture.do("a", ask(fixture, job, expires=until))
        await fixture.do("a", suspend(fixture, job, wake_at=until))
        await fixture.until(until)
        await fixture.refused("a", answer(fixture))
        (again,) = await fixture.claim()
        await fixture.refused("a", answer(fixture))
        await fixture.refused("a", settle(fixture, job))
        await fixture.refused("a", settle(fixture, again, version="0"))
        other = await fixture.made("a", settle(fixture, again, key="other"))
        assert other.record["asking"] == "k"
        await fixture.do("a", settle(fixture, again, version="2"))
        job = await fixture.job("a")
        assert job.record["questions"] == "[3]"
        assert not {"asking", "ask_expires"} & set(job.record)

    async def test_answer_before_the_question_is_kept(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        await fixture.do("a", answer(fixture, version=""))
        job = await fixture.start("a")
        await fixture.refused("a", ask(fixture, job))
        await fixture.do("a", settle(fixture, job))
        assert (await fixture.job("a")).record["questions"] == "[3]"

    async def test_answer_to_another_question_does_not_wake_the_job(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        job = await fixture.start("a")
        await fixture.do("a", ask(fixture, job))
        await fixture.do("a", suspend(fixture, job))
        await fixture.do("a", answer(fixture, key="other"))
        assert await fixture.claim() == []
        assert (await fixture.job("a")).record["asking"] == "k"

    async def test_answer_raises_the_budget(self, fixture: StoreFixture) -> None:
        """The answer and the larger budget are one step, whatever the job waits for."""
        for state in ("waits", "paused", "runs"):
            await fixture.create(state, worker_job(usage_budget='{"usd":1}'))
            job = await fixture.start(state)
            if state == "runs":
                asked = {"version": "", "questions": "[1]", "data": "{}"}
                await fixture.do(state, plans.plan_ask_from_below(fixture.operation_id(), **asked))
                await fixture.refused(state, plans.plan_ask_from_below(fixture.operation_id(), **asked))
            else:
                await fixture.do(state, ask(fixture, job))
                await fixture.do(state, suspend(fixture, job))
            if state == "paused":
                await fixture.do(state, plans.plan_pause(fixture.operation_id(), by="bob", data="{}"))
            values = {"questions": "[2]", "key": "k", "data": "{}", "budget": '{"usd":2}'}
            await fixture.refused(state, plans.plan_answer(fixture.operation_id(), version="0", **values))
            assert (await fixture.job(state)).record["usage_budget"] == '{"usd":1}'
            await fixture.do(state, plans.plan_answer(fixture.operation_id(), version="1", **values))
            assert (await fixture.job(state)).record["usage_budget"] == '{"usd":2}'
        assert [one.job_id for one in await fixture.claim()] == ["waits"]

    async def test_job_waits_for_the_question_of_a_job_above(self, fixture: StoreFixture) -> None:
        """It waits without a question of its own, and starts at a time of its own at the latest."""
        waits: dict[str, Any] = {
            "wake_at": await fixture.store.now() + LONG,
            "asking": "k of job p",
            "is_asked_above": True,
        }
        for job_id in ("a", "b"):
            await fixture.create(job_id, worker_job())
            token = token_of(await fixture.start(job_id))
            await fixture.do(job_id, plans.plan_suspend(fixture.operation_id(), token, {}, ran=1, **waits))
        assert await fixture.claim() == []
        held = await fixture.store.held_by("user:answer:k of job p", 9)
        assert sorted(held) == ["a", "b"]
        await fixture.refused("a", plans.plan_wake_below(fixture.operation_id(), "k", data="{}"))
        await fixture.do("a", plans.plan_wake_below(fixture.operation_id(), "k of job p", data="{}"))
        await fixture.refused("a", plans.plan_wake_below(fixture.operation_id(), "k of job p", data="{}"))
        assert [one.job_id for one in await fixture.claim()] == ["a"]

    async def test_lost_run_asks_nothing(self, fixture: StoreFixture) -> None:
        """I28 for questions: only the live run asks, settles and waits."""
        await fixture.create("a", worker_job())
        lost = await fixture.start("a", lease=0)
        await fixture.do("a", ask(fixture, lost))
        await fixture.do("a", plans.plan_lease_expired(fixture.operation_id(), crashes_left=2, **CRASH))
        await fixture.start("a")
        for change in (ask(fixture, lost, version="1"), settle(fixture, lost, key="other"), suspend(fixture, lost)):
            await fixture.refused("a", change)
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.refused("a", answer(fixture))

    async def test_tracked_run_is_not_suspended(self, fixture: StoreFixture) -> None:
        job = await fixture.track("a", track_job())
        await fixture.do("a", ask(fixture, job))
        await fixture.refused("a", suspend(fixture, job))

    async def test_question_outlives_the_attempt(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(attempts=1))
        job = await fixture.start("a")
        await fixture.do("a", ask(fixture, job))
        await fixture.do("a", suspend(fixture, job))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        retried = await fixture.made("a", plans.plan_retry(fixture.operation_id()))
        assert retried.record["asking"] == "k"
        answered = await fixture.made("a", answer(fixture))
        assert "wake_at" not in answered.record
        (job,) = await fixture.claim()
        assert job.record["questions"] == "[2]"
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
        await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token_of(job), "cooperative", confirmed=True))
        fresh = await fixture.made("a", plans.plan_retry(fixture.operation_id(), from_start=True))
        assert not {"questions", "questions_version", "asking"} & set(fresh.record)
        assert await fixture.store.renew([("a", token_of(job))], LONG) == ["lost"]
