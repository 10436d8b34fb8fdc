"""What runs and callers write: fields, budgets, progress, and the end that carries the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.testing.conformance.cells import CRASH, fail
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    World,
    caller_job,
    token_of,
    track_job,
    worker_job,
)

REPORT = {
    "progress": "0.5",
    "message": "half",
    "stages": '[{"name":"Load","done":5,"total":10}]',
    "item_counts": '{"done":5,"failed":1,"failed_keys":["k"]}',
    "eta": '{"earliest":"2030-01-01T00:00:00+00:00","latest":"2030-01-02T00:00:00+00:00"}',
    "cursors": '{"Load":"k5"}',
}

ENDS: dict[str, Callable[[str, str], Change]] = {
    "completed": lambda op, token: plans.plan_complete(op, token, '{"a":[]}', REPORT),
    "failed": lambda op, token: plans.plan_fail(op, token, error="no", failure='{"kind":"error"}', report=REPORT),
    "cancelled": lambda op, token: plans.plan_cancel_own(op, token, REPORT, by="ana", why="Ctrl-C"),
}


class Runs(Scenarios):
    """Running jobs to their end, and again."""

    @pytest.mark.parametrize("end", list(ENDS))
    async def test_the_end_carries_what_was_not_yet_reported(self, world: World, end: str) -> None:
        await world.create("a", worker_job())
        running = await world.start("a")
        job = await world.made("a", ENDS[end](world.op(), token_of(running)))
        assert (job.status.value, job.message) == (end, "half")
        assert job.progress == (1.0 if end == "completed" else 0.5)
        assert job.item_counts is not None
        assert job.item_counts.failed_keys == ("k",)
        assert [s.name for s in job.stages] == ["Load"]
        assert (job.eta, job.lease_expires_at) == (None, None)
        assert job.result == ({"a": []} if end == "completed" else None)
        assert await world.store.renew([("a", token_of(running))], LONG) == ["lost"]

    async def test_an_ended_job_keeps_nothing_that_only_a_later_attempt_would_need(self, world: World) -> None:
        await world.create("a", worker_job(not_before="1", not_after=str(1 << 52)))
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_checkpoint(world.op(), token, '{"at":5}', REPORT))
        job = await world.made("a", plans.plan_complete(world.op(), token, None, {}))
        left = {"checkpoint", "cursors", "slot", "queue", "token", "lease", "not_before", "not_after", "budget", "eta"}
        assert not left & set(job.record)
        assert job.checkpoint_at is not None

    async def test_progress_never_goes_back_within_an_attempt_and_begins_again_with_the_next(
        self, world: World
    ) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        for told, shown in (("0.5", 0.5), ("0.25", 0.5), ("0.75", 0.75), ("0", 0.75)):
            job = await world.made("a", plans.plan_report(world.op(), token, {"progress": told, "message": told}))
            assert (job.progress, job.message) == (shown, told)
        await world.do("a", plans.plan_checkpoint(world.op(), token, "1", {"progress": "0.1"}))
        job = await world.made("a", fail(world.op(), token, 0))
        assert (job.progress, job.started_at) == (0.0, None)
        again = await world.start("a")
        assert (again.progress, again.attempt, again.stages, again.error) == (0.0, 2, (), None)
        job = await world.made("a", plans.plan_report(world.op(), token_of(again), {"progress": "0.1"}))
        assert job.progress == 0.1

    async def test_a_failed_job_keeps_what_it_reached(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_report(world.op(), token, {"progress": "0.4"}))
        job = await world.made("a", fail(world.op(), token))
        assert (job.progress, job.error, job.failure and job.failure.kind) == (0.4, "no", "error")

    async def test_errors_and_crashes_have_separate_budgets(self, world: World) -> None:
        await world.create("a", worker_job(attempts=2))
        counts = []
        for change in (_crash, _fail, _crash, _crash):
            token = token_of(await world.start("a"))
            job = await world.made("a", change(world, token))
            counts.append((job.status.value, job.attempt, job.crashes))
        assert counts == [("pending", 0, 1), ("pending", 1, 1), ("pending", 1, 2), ("failed", 1, 3)]
        job = await world.job("a")
        assert job.failure is not None
        assert job.failure.kind == "crash_loop"
        assert job.record["attempts"].count("kind") == 4

    async def test_the_last_attempt_fails_for_good(self, world: World) -> None:
        await world.create("a", worker_job(attempts=2))
        for status, attempt in (("pending", 1), ("failed", 2)):
            token = token_of(await world.start("a"))
            job = await world.made("a", _fail(world, token))
            assert (job.status.value, job.attempt) == (status, attempt)

    async def test_an_explicit_retry_gives_one_fresh_budget(self, world: World) -> None:
        await world.create("a", worker_job(attempts=2))
        for _ in range(2):
            token = token_of(await world.start("a"))
            await world.do("a", plans.plan_checkpoint(world.op(), token, '{"at":9}', {}))
            job = await world.made("a", _fail(world, token))
        job = await world.made("a", plans.plan_retry(world.op()))
        assert (job.status.value, job.attempt, job.max_attempts) == ("pending", 2, 4)
        assert (job.completed_at, job.error, job.result, job.failure, job.progress) == (None, None, None, None, 0.0)
        assert job.record["checkpoint"] == '{"at":9}'
        assert job.record["max_crashes"] == "3"
        assert job.record["attempts"].count("kind") == 2
        assert [j.job_id for j in await world.claim()] == ["a"]

    async def test_a_release_and_an_uncharged_crash_cost_nothing(self, world: World) -> None:
        await world.create("a", worker_job(attempts=1))
        token = token_of(await world.start("a"))
        job = await world.made("a", plans.plan_release(world.op(), token, {"message": "later"}))
        assert (job.status.value, job.attempt, job.crashes, job.message) == ("pending", 0, 0, "later")
        await world.start("a", lease=0)
        job = await world.made("a", plans.plan_lost(world.op(), crashes_left=None, **CRASH))
        assert (job.status.value, job.attempt, job.crashes) == ("pending", 0, 0)
        assert job.record["suspect"] == "1"
        assert (await world.claim())[0].attempt == 1

    async def test_a_track_job_is_taken_up_again_by_its_next_start(self, world: World) -> None:
        job = await world.track("a", track_job(unique_key="k"), lease=0)
        first = token_of(job)
        await world.do("a", plans.plan_checkpoint(world.op(), first, "3", {"progress": "0.5"}))
        job = await world.made("a", _reopen(world))
        assert (job.status.value, job.attempt, job.crashes, job.progress) == ("running", 1, 1, 0.0)
        assert job.record["checkpoint"] == "3"
        await world.refused("a", plans.plan_complete(world.op(), first, None, {}))
        await world.refused("a", _reopen(world))
        await world.do("a", fail(world.op(), token_of(job)))
        job = await world.made("a", _reopen(world))
        assert (job.attempt, job.crashes, job.error, job.completed_at) == (2, 1, None, None)

    async def test_a_track_job_never_goes_back_to_pending(self, world: World) -> None:
        """No worker knows its code, whatever its budgets are."""
        ends: tuple[Callable[[str], Change], ...] = (
            lambda token: fail(world.op(), token, 0),
            lambda token: fail(world.op(), token, 0, stopping=True),
            lambda token: plans.plan_crash(world.op(), token, report={}, last=2, **CRASH),
            lambda token: plans.plan_lost(world.op(), crashes_left=2, **CRASH),
            lambda token: plans.plan_lost(world.op(), crashes_left=None, **CRASH),
        )
        for number, end in enumerate(ends):
            job = await world.track(f"a{number}", track_job(max_attempts="9", budget="9"), lease=0)
            job = await world.made(f"a{number}", end(token_of(job)))
            assert job.status.value == "failed"
        job = await world.track("b", track_job(max_attempts="9", budget="9"))
        await world.refused("b", plans.plan_release(world.op(), token_of(job), {}))

    async def test_an_adopted_job_is_no_longer_its_callers(self, world: World) -> None:
        await world.create("a", caller_job())
        job = await world.made("a", plans.plan_adopt(world.op(), nonce="n", lease=LONG, worker="w1"))
        assert (job.driver, job.status.value, job.attempt) == ("track", "running", 1)
        await world.refused("a", plans.plan_update(world.op(), "completed"))
        await world.do("a", plans.plan_cancel(world.op()))

    async def test_a_callers_job_goes_as_the_original_allowed(self, world: World) -> None:
        job = await world.create("a", caller_job(metadata='{"z":[],"a":{}}'))
        assert (job.status.value, job.progress, job.message, job.metadata) == (
            "pending", 0.0, "Job created", {"z": [], "a": {}},
        )  # fmt: skip
        job = await world.made("a", plans.plan_update(world.op(), "running", message="go"))
        assert job.started_at is not None
        started = job.started_at
        await world.tick()
        job = await world.made("a", plans.plan_update(world.op(), "running", progress="0.5"))
        assert (job.started_at, job.progress, job.message) == (started, 0.5, "go")
        job = await world.made("a", plans.plan_update(world.op(), "completed", result="{}"))
        assert (job.progress, job.result) == (1.0, {})
        assert job.completed_at is not None
        assert job.completed_at >= started
        await world.create("b", caller_job())
        job = await world.made("b", plans.plan_update(world.op(), "failed", error="no"))
        assert job.started_at is not None
        assert job.error == "no"


def _crash(world: World, token: str) -> Change:
    return plans.plan_crash(world.op(), token, report={}, last=2, **CRASH)


def _fail(world: World, token: str) -> Change:
    return fail(world.op(), token, 0)


def _reopen(world: World) -> Change:
    return plans.plan_reopen(world.op(), nonce=world.nonce(), lease=LONG, worker="w1", failure='{"kind":"lost"}')
