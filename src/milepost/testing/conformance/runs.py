"""Writes of runs and callers: fields, budgets, progress, ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost.core import transitions as plans
from milepost.core.codecs import failure_rows
from milepost.core.job import Job
from milepost.core.transitions.change import Change
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    StoreFixture,
    caller_job,
    token_of,
    track_job,
    worker_job,
)
from milepost.testing.conformance.transition_matrix import CRASH, FAILURE, fail

REPORT = {
    "progress": "0.5",
    "message": "half",
    "stages": '[{"name":"Load","done":5,"total":10}]',
    "item_counts": '{"done":5,"failed":1,"failed_keys":["k"]}',
    "eta": '{"earliest":"2030-01-01T00:00:00+00:00","latest":"2030-01-02T00:00:00+00:00"}',
    "cursors": '{"Load":"k5"}',
    "state": '{"Embed":{"n":3,"state":"{}"}}',
    "state_error": "too large",
}

ENDS: dict[str, Callable[[str, str], Change]] = {
    "completed": lambda operation_id, token: plans.plan_complete(operation_id, token, '{"a":[]}', REPORT),
    "failed": lambda operation_id, token: plans.plan_fail(
        operation_id, token, error="no", failure='{"kind":"error"}', report=REPORT
    ),
    "cancelled": lambda operation_id, token: plans.plan_self_cancel(
        operation_id, token, REPORT, by="ana", why="Ctrl-C"
    ),
}


class Runs(Scenarios):
    """Runs, their ends and retries."""

    @pytest.mark.parametrize("end", list(ENDS))
    async def test_end_carries_unreported_fields(self, fixture: StoreFixture, end: str) -> None:
        await fixture.create("a", worker_job())
        running = await fixture.start("a")
        job = await fixture.made("a", ENDS[end](fixture.operation_id(), token_of(running)))
        assert (job.status.value, job.message) == (end, "half")
        assert job.progress == (1.0 if end == "completed" else 0.5)
        assert job.item_counts is not None
        assert job.item_counts.failed_keys == ("k",)
        assert [s.name for s in job.stages] == ["Load"]
        assert (job.eta, job.lease_expires_at) == (None, None)
        assert job.result == ({"a": []} if end == "completed" else None)
        assert await fixture.store.renew([("a", token_of(running))], LONG) == ["lost"]

    async def test_completed_job_keeps_text_instead_of_result(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        plan = plans.plan_complete_without_result(fixture.operation_id(), token, "result: no", "<object>", REPORT)
        job = await fixture.made("a", plan)
        assert (job.status.value, job.progress, job.result) == ("completed", 1.0, None)
        assert (job.result_error, job.result_text) == ("result: no", "<object>")
        assert await fixture.store.renew([("a", token)], LONG) == ["lost"]

    async def test_completed_job_drops_retry_fields(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(not_before="1", not_after=str(1 << 52)))
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_checkpoint(fixture.operation_id(), token, '{"at":5}', REPORT))
        await fixture.do("a", plans.plan_keep_step(fixture.operation_id(), token, '{"values":[]}', '{"key":"k"}'))
        job = await fixture.made("a", plans.plan_complete(fixture.operation_id(), token, None, {}))
        left = {
            "checkpoint",
            "steps",
            "cursors",
            "state",
            "slot",
            "ready",
            "token",
            "lease",
            "not_after",
            "budget",
            "eta",
        }
        assert not left & set(job.record)
        assert job.checkpoint_at is not None

    async def test_progress_is_monotonic_within_attempt(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        for sent, shown in (("0.5", 0.5), ("0.25", 0.5), ("0.75", 0.75), ("0", 0.75)):
            job = await fixture.made(
                "a", plans.plan_report(fixture.operation_id(), token, {"progress": sent, "message": sent})
            )
            assert (job.progress, job.message) == (shown, sent)
        await fixture.do("a", plans.plan_checkpoint(fixture.operation_id(), token, "1", {"progress": "0.1"}))
        job = await fixture.made("a", fail(fixture.operation_id(), token, 0))
        assert (job.progress, job.started_at) == (0.0, None)
        again = await fixture.start("a")
        assert (again.progress, again.attempt, again.stages, again.error) == (0.0, 2, (), None)
        job = await fixture.made("a", plans.plan_report(fixture.operation_id(), token_of(again), {"progress": "0.1"}))
        assert job.progress == 0.1

    async def test_failed_job_keeps_progress(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {"progress": "0.4"}))
        job = await fixture.made("a", fail(fixture.operation_id(), token))
        assert (job.progress, job.error, job.failure and job.failure.kind) == (0.4, "no", "error")

    async def test_errors_and_crashes_have_separate_budgets(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(attempts=2))
        counts = []
        for change in (_crash, _fail, _crash, _crash):
            token = token_of(await fixture.start("a"))
            job = await fixture.made("a", change(fixture, token))
            counts.append((job.status.value, job.attempt, job.crashes))
        assert counts == [("pending", 0, 1), ("pending", 1, 1), ("pending", 1, 2), ("failed", 1, 3)]
        job = await fixture.job("a")
        assert job.failure is not None
        assert job.failure.kind == "crash_loop"
        assert job.record["failures"].count("kind") == 4

    async def test_last_attempt_fails_job(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(attempts=2))
        for status, attempt in (("pending", 1), ("failed", 2)):
            token = token_of(await fixture.start("a"))
            job = await fixture.made("a", _fail(fixture, token))
            assert (job.status.value, job.attempt) == (status, attempt)

    async def test_retry_grants_one_budget(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(attempts=2))
        for _ in range(2):
            token = token_of(await fixture.start("a"))
            await fixture.do("a", plans.plan_checkpoint(fixture.operation_id(), token, '{"at":9}', {}))
            job = await fixture.made("a", _fail(fixture, token))
        job = await fixture.made("a", plans.plan_retry(fixture.operation_id()))
        assert (job.status.value, job.attempt, job.max_attempts) == ("pending", 2, 4)
        assert (job.completed_at, job.error, job.result, job.failure, job.progress) == (None, None, None, None, 0.0)
        assert job.record["checkpoint"] == '{"at":9}'
        assert job.record["max_crashes"] == "3"
        assert job.record["failures"].count("kind") == 2
        assert [j.job_id for j in await fixture.claim()] == ["a"]

    async def test_explicit_retry_clears_message_of_end(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        job = await fixture.made("a", plans.plan_cancel(fixture.operation_id(), message="Job cancelled by user"))
        assert job.message == "Job cancelled by user"
        job = await fixture.made("a", plans.plan_retry(fixture.operation_id()))
        assert (job.status.value, job.message) == ("pending", "")

    async def test_explicit_retry_keeps_places_of_loops_unless_from_start(self, fixture: StoreFixture) -> None:
        names = {"checkpoint", "checkpoint_at", "cursors", "state", "steps"}
        for job_id, from_start in (("a", False), ("b", True)):
            await fixture.create(job_id, worker_job(attempts=1))
            token = token_of(await fixture.start(job_id))
            await fixture.do(job_id, plans.plan_checkpoint(fixture.operation_id(), token, '{"at":9}', REPORT))
            await fixture.do(
                job_id, plans.plan_keep_step(fixture.operation_id(), token, '{"values":[]}', '{"key":"k"}')
            )
            await fixture.made(job_id, _fail(fixture, token))
            job = await fixture.made(job_id, plans.plan_retry(fixture.operation_id(), from_start=from_start))
            assert job.status == "pending"
            assert names & set(job.record) == (set() if from_start else names)
            assert "state_error" in job.record or from_start
            assert job.record.get("restarts") == ("1" if from_start else None)

    async def test_release_and_uncharged_crash_cost_nothing(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job(attempts=1))
        token = token_of(await fixture.start("a"))
        job = await fixture.made("a", plans.plan_release(fixture.operation_id(), token, {"message": "later"}))
        assert (job.status.value, job.attempt, job.crashes, job.message) == ("pending", 0, 0, "later")
        await fixture.start("a", lease=0)
        job = await fixture.made("a", plans.plan_lease_expired(fixture.operation_id(), crashes_left=None, **CRASH))
        assert (job.status.value, job.attempt, job.crashes) == ("pending", 0, 0)
        assert job.record["suspect"] == "1"
        assert (await fixture.claim())[0].attempt == 1

    @pytest.mark.parametrize("crashes_left", [2, None])
    async def test_event_of_lost_run_says_why_and_where(self, fixture: StoreFixture, crashes_left: int | None) -> None:
        """A loss that was not charged left no trace but the next start."""
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a", lease=0))
        done = {name: REPORT[name] for name in ("progress", "stages")}
        await fixture.do("a", plans.plan_checkpoint(fixture.operation_id(), token, "3", done))
        lost = plans.plan_lease_expired(fixture.operation_id(), crashes_left=crashes_left, **CRASH)
        job = await fixture.made("a", lost)
        event = (await fixture.store.events("a"))[-1]
        assert (event.kind, event.at) == ("retrying", job.attempts[-1].ended_at)
        assert int(event.data["suspect" if crashes_left is None else "crashes"]) == 1
        assert (event.data["error"], event.data["stages"][0]["done"]) == (CRASH["error"], 5)
        assert [job.error, len(failure_rows(job.record))] == [CRASH["error"], 1]

    @pytest.mark.parametrize("back", ["fail", "crash", "lost", "release", "retry"])
    async def test_progress_of_a_run_ends_with_it(self, fixture: StoreFixture, back: str) -> None:
        """A pending job showed the percentage of the stage in which its last run was lost."""
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a", lease=0))
        stages = '[{"name":"load","done":5,"total":10,"started_at":"2026-11-26T12:00:00+00:00"}]'
        report = {"progress": "0.5", "progress_known": "0", "stages": stages, "cursors": '{"load":{"n":4,"of":10}}'}
        await fixture.do("a", plans.plan_report(fixture.operation_id(), token, report))
        ways: dict[str, Callable[[], Change]] = {
            "fail": lambda: fail(fixture.operation_id(), token, 0),
            "crash": lambda: _crash(fixture, token),
            "lost": lambda: plans.plan_lease_expired(fixture.operation_id(), crashes_left=2, **CRASH),
            "release": lambda: plans.plan_release(fixture.operation_id(), token, {}),
            "retry": lambda: plans.plan_retry(fixture.operation_id()),
        }
        if back == "retry":
            await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
            await fixture.do("a", plans.plan_receipt(fixture.operation_id(), token, "cooperative", confirmed=True))
        job = await fixture.made("a", ways[back]())
        assert (job.status.value, job.progress, job.progress_known, job.stage_progress) == ("pending", 0.0, True, None)
        assert len(job.stages) == 1, "what the last run had done is still shown as such"
        assert job.activity.endswith(" · resumes load after 4 of 10 items")

    @pytest.mark.parametrize("back", ["fail", "fail stopping", "crash", "lost", "release", "release stopping"])
    async def test_start_clears_deadline_of_later_attempts(self, fixture: StoreFixture, back: str) -> None:
        """A job that had started in time expired when its next attempt came after `not_after`."""
        job_id, running = await _started_just_in_time(fixture)
        token = token_of(running)
        ways: dict[str, Callable[[], Change]] = {
            "fail": lambda: fail(fixture.operation_id(), token, 0),
            "fail stopping": lambda: fail(fixture.operation_id(), token, 0, stopping=True),
            "crash": lambda: plans.plan_crash(fixture.operation_id(), token, report={}, last=2, **CRASH),
            "lost": lambda: plans.plan_lease_expired(fixture.operation_id(), crashes_left=2, **CRASH),
            "release": lambda: plans.plan_release(fixture.operation_id(), token, {}),
            "release stopping": lambda: plans.plan_release(fixture.operation_id(), token, {}, stopping=True),
        }
        job = await fixture.made(job_id, ways[back]())
        assert (job.status.value, job.not_after) == ("pending", None)
        found = await fixture.store.sweep(lease=3600, interval=0)
        assert [due for due in found.due if due.kind == "deadline"] == []
        await fixture.refused(job_id, plans.plan_expire(fixture.operation_id(), **FAILURE))
        if "stopping" in back:
            await fixture.do(job_id, plans.plan_receipt(fixture.operation_id(), token, "late", confirmed=True))
        assert [job.job_id for job in await fixture.claim(most=9)] == [job_id]

    async def test_tracked_job_resumes_on_next_start(self, fixture: StoreFixture) -> None:
        job = await fixture.track("a", track_job(unique_key="k"), lease=0)
        first = token_of(job)
        await fixture.do("a", plans.plan_checkpoint(fixture.operation_id(), first, "3", {"progress": "0.5"}))
        job = await fixture.made("a", _reopen(fixture))
        assert (job.status.value, job.attempt, job.crashes, job.progress) == ("running", 1, 1, 0.0)
        assert job.record["checkpoint"] == "3"
        await fixture.refused("a", plans.plan_complete(fixture.operation_id(), first, None, {}))
        await fixture.refused("a", _reopen(fixture))
        await fixture.do("a", fail(fixture.operation_id(), token_of(job)))
        job = await fixture.made("a", _reopen(fixture))
        assert (job.attempt, job.crashes, job.error, job.completed_at) == (2, 1, None, None)

    async def test_tracked_job_never_returns_to_pending(self, fixture: StoreFixture) -> None:
        """No worker has its code, so it fails in spite of its budgets."""
        ends: tuple[Callable[[str], Change], ...] = (
            lambda token: fail(fixture.operation_id(), token, 0),
            lambda token: fail(fixture.operation_id(), token, 0, stopping=True),
            lambda token: plans.plan_crash(fixture.operation_id(), token, report={}, last=2, **CRASH),
            lambda token: plans.plan_lease_expired(fixture.operation_id(), crashes_left=2, **CRASH),
            lambda token: plans.plan_lease_expired(fixture.operation_id(), crashes_left=None, **CRASH),
        )
        for number, end in enumerate(ends):
            job = await fixture.track(f"a{number}", track_job(max_attempts="9", budget="9"), lease=0)
            job = await fixture.made(f"a{number}", end(token_of(job)))
            assert job.status.value == "failed"
        job = await fixture.track("b", track_job(max_attempts="9", budget="9"))
        await fixture.refused("b", plans.plan_release(fixture.operation_id(), token_of(job), {}))

    async def test_adopted_job_is_no_longer_manual(self, fixture: StoreFixture) -> None:
        await fixture.create("a", caller_job())
        job = await fixture.made("a", plans.plan_adopt(fixture.operation_id(), nonce="n", lease=LONG, worker="w1"))
        assert (job.run_by, job.status.value, job.attempt) == ("track", "running", 1)
        await fixture.refused("a", plans.plan_update(fixture.operation_id(), "completed"))
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))

    async def test_manual_job_follows_original_moves(self, fixture: StoreFixture) -> None:
        job = await fixture.create("a", caller_job(metadata='{"z":[],"a":{}}'))
        assert (job.status.value, job.progress, job.message, job.metadata) == (
            "pending", 0.0, "Job created", {"z": [], "a": {}},
        )  # fmt: skip
        job = await fixture.made("a", plans.plan_update(fixture.operation_id(), "running", message="go"))
        assert job.started_at is not None
        started = job.started_at
        await fixture.tick()
        job = await fixture.made("a", plans.plan_update(fixture.operation_id(), "running", progress="0.5"))
        assert (job.started_at, job.progress, job.message) == (started, 0.5, "go")
        job = await fixture.made("a", plans.plan_update(fixture.operation_id(), "completed", result="{}"))
        assert (job.progress, job.result) == (1.0, {})
        assert job.completed_at is not None
        assert job.completed_at >= started
        await fixture.create("b", caller_job())
        job = await fixture.made("b", plans.plan_update(fixture.operation_id(), "failed", error="no"))
        assert job.started_at is not None
        assert job.error == "no"


async def _started_just_in_time(fixture: StoreFixture) -> tuple[str, Job]:
    """Return a job that started before its `not_after`, which has passed; a slow machine may need several jobs."""
    for number in range(20):
        job_id, last = f"late{number}", await fixture.store.now() + (20_000 << number)
        await fixture.create(job_id, worker_job(not_after=str(last)))
        start = plans.plan_start(fixture.operation_id(), nonce=fixture.nonce(), lease=0, worker="w1")
        outcome = await fixture.attempt(job_id, start)
        await fixture.until(last)
        if outcome.accepted and outcome.job is not None:
            return job_id, outcome.job
        await fixture.do(job_id, plans.plan_expire(fixture.operation_id(), **FAILURE))
    raise AssertionError("no job started before its deadline")


def _crash(fixture: StoreFixture, token: str) -> Change:
    return plans.plan_crash(fixture.operation_id(), token, report={}, last=2, **CRASH)


def _fail(fixture: StoreFixture, token: str) -> Change:
    return fail(fixture.operation_id(), token, 0)


def _reopen(fixture: StoreFixture) -> Change:
    return plans.plan_resume(
        fixture.operation_id(), nonce=fixture.nonce(), lease=LONG, worker="w1", failure='{"kind":"lost"}'
    )
