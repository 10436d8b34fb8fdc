"""What runs and callers write: fields, budgets, progress, repeated operations, batches, what a store must not lose."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.core.job import Job
from milepost.stores.protocol import Claim, Write
from milepost.testing.conformance.cells import CRASH, FAILURE
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    World,
    caller_job,
    engine_job,
    needs_moving_clock,
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
    "failed": lambda op, token: plans.plan_fail(op, token, report=REPORT, **FAILURE),  # type: ignore[arg-type]
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
        job = await world.made("a", plans.plan_fail(world.op(), token, report={}, delay=0, **FAILURE))  # type: ignore[arg-type]
        assert (job.progress, job.started_at) == (0.0, None)
        again = await world.start("a")
        assert (again.progress, again.attempt, again.stages, again.error) == (0.0, 2, (), None)
        job = await world.made("a", plans.plan_report(world.op(), token_of(again), {"progress": "0.1"}))
        assert job.progress == 0.1

    async def test_a_failed_job_keeps_what_it_reached(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        await world.do("a", plans.plan_report(world.op(), token, {"progress": "0.4"}))
        job = await world.made("a", plans.plan_fail(world.op(), token, report={}, **FAILURE))  # type: ignore[arg-type]
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
        await world.do("a", plans.plan_fail(world.op(), token_of(job), report={}, **FAILURE))  # type: ignore[arg-type]
        job = await world.made("a", _reopen(world))
        assert (job.attempt, job.crashes, job.error, job.completed_at) == (2, 1, None, None)

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


class Repeats(Scenarios):
    """A reply can be lost: whoever asks again with the same operation id gets the same answer, and nothing happens twice."""

    @pytest.mark.parametrize(
        "kind", ["create", "track", "start", "deliver", "report", "log", "checkpoint", "complete", "fail", "again",
                 "release", "cancel", "retry", "update", "receipt", "lost", "expire"],
    )  # fmt: skip
    async def test_a_repeated_change_is_answered_again(self, world: World, kind: str) -> None:
        change = await _ready(world, kind)
        first = await world.attempt("a", change)
        events = await world.store.events("a")
        feed = (await world.store.feed("0")).position
        await world.tick()
        again = await world.attempt("a", change)
        assert first.accepted
        assert (again.accepted, again.repeated, again.case) == (True, True, first.case)
        assert again.job is not None
        assert first.job is not None
        assert dict(again.job.record) == dict(first.job.record)
        assert await world.store.events("a") == events
        assert (await world.store.feed("0")).position == feed

    async def test_a_repeat_is_known_after_three_others(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        change = plans.plan_report(world.op(), token, {"message": "first"})
        await world.do("a", change)
        for number in range(3):
            await world.do("a", plans.plan_report(world.op(), token, {"message": str(number)}))
        outcome = await world.attempt("a", change)
        assert outcome.repeated
        assert outcome.job is not None
        assert outcome.job.message == "2"

    async def test_the_operation_that_created_a_job_is_known_for_all_its_life(self, world: World) -> None:
        change = plans.plan_create(worker_job(), world.op())
        await world.do("a", change)
        token = token_of(await world.start("a"))
        for _ in range(5):
            await world.do("a", plans.plan_report(world.op(), token, {}))
        await world.do("a", plans.plan_complete(world.op(), token, None, {}))
        outcome = await world.attempt("a", change)
        assert (outcome.accepted, outcome.repeated) == (True, True)
        outcome = await world.attempt("a", plans.plan_create(worker_job(), world.op()))
        assert (outcome.accepted, outcome.repeated) == (False, False)

    async def test_a_repeated_submit_does_not_bring_a_deleted_job_back(self, world: World) -> None:
        change = plans.plan_create(worker_job(), world.op())
        await world.do("a", change)
        await world.do("a", plans.plan_delete(world.op()))
        outcome = await world.attempt("a", change)
        assert (outcome.accepted, outcome.repeated, outcome.job) == (False, True, None)
        assert await world.store.get("a") is None
        assert await world.store.counts() == {}
        await world.create("a", worker_job())
        assert (await world.job("a")).version == 1

    async def test_a_repeated_submit_is_forgotten_after_a_minute(self, world: World) -> None:
        clock = needs_moving_clock(world)
        change = plans.plan_create(worker_job(), world.op())
        await world.do("a", change)
        await world.do("a", plans.plan_delete(world.op()))
        clock.advance(59)
        assert not (await world.attempt("a", change)).accepted
        clock.advance(2)
        assert (await world.attempt("a", change)).accepted

    async def test_a_repeated_claim_gives_the_same_jobs(self, world: World) -> None:
        for name in "abcd":
            await world.create(name, worker_job())
        claim = Claim("w1", {"q": None}, world.starts(2), world.op())
        first = (await world.store.apply([], claim)).claimed
        again = (await world.store.apply([], claim)).claimed
        assert [j.job_id for j in first] == ["a", "b"]
        assert [dict(j.record) for j in again] == [dict(j.record) for j in first]
        assert [j.job_id for j in await world.claim(most=5)] == ["c", "d"]
        empty = Claim("w2", {"q": None}, world.starts(2), world.op())
        assert (await world.store.apply([], empty)).claimed == []
        await world.create("e", worker_job())
        assert (await world.store.apply([], empty)).claimed == [], "a repeated claim that found nothing finds nothing"


class Batches(Scenarios):
    """Several writes in one round trip: each is a change of its own."""

    async def test_a_refused_write_in_the_middle_stops_nothing(self, world: World) -> None:
        await world.create("a", worker_job())
        await world.create("b", caller_job())
        token = token_of(await world.start("a"))
        answer = await world.store.apply(
            [
                Write("a", plans.plan_report(world.op(), token, {"progress": "0.1"})),
                Write("b", plans.plan_retry(world.op())),
                Write("nobody", plans.plan_cancel(world.op())),
                Write("a", plans.plan_report(world.op(), "1:forged", {"progress": "0.9"})),
                Write("a", plans.plan_report(world.op(), token, {"progress": "0.2"})),
                Write("c", plans.plan_create(worker_job(), world.op())),
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
        assert (await world.job("a")).progress == 0.2
        assert [e.progress for e in await world.store.events("a") if e.kind == "progress"] == []
        assert (await world.job("a")).version == 4

    async def test_writes_come_in_order_and_before_the_claim(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        writes = [
            Write("a", plans.plan_complete(world.op(), token, "1", {})),
            Write("b", plans.plan_create(worker_job(), world.op())),
            Write("c", plans.plan_create(worker_job(priority="5"), world.op())),
        ]
        claim = Claim("w1", {"q": 1}, world.starts(2), world.op())
        answer = await world.store.apply(writes, claim)
        assert all(o.accepted for o in answer.outcomes)
        assert [j.job_id for j in answer.claimed] == ["c"], "the finished run gave its slot back, the limit is one"

    async def test_an_answer_comes_only_where_it_was_asked_for(self, world: World) -> None:
        await world.create("a", worker_job())
        token = token_of(await world.start("a"))
        quiet = [Write("a", plans.plan_report(world.op(), t, {}), answer=False) for t in (token, "1:forged")]
        accepted, refused = (await world.store.apply(quiet)).outcomes
        assert (accepted.accepted, accepted.job) == (True, None)
        assert refused.job is not None, "a refusal always carries the record"

    async def test_nothing_is_an_answer_to_nothing(self, world: World) -> None:
        answer = await world.store.apply([])
        assert (answer.outcomes, answer.claimed) == ([], [])

    async def test_many_writes_at_once(self, world: World) -> None:
        writes = [Write(f"j{n:04d}", plans.plan_create(worker_job(), world.op())) for n in range(300)]
        assert all(o.accepted for o in (await world.store.apply(writes)).outcomes)
        assert await world.store.counts() == {("t", "pending"): 300}
        ids = [j.job_id for j in await world.claim(most=300)]
        assert ids == sorted(ids)
        assert len(ids) == 300


class Keeping(Scenarios):
    """What a store must not lose or change."""

    async def test_fields_that_are_not_known_are_kept(self, world: World) -> None:
        await world.create("a", worker_job(from_a_later_release='{"deep":[1]}', zz="\x1f=?"))
        for end in ("failed", "completed"):
            token = token_of(await world.start("a"))
            job = await world.made("a", ENDS[end](world.op(), token))
            assert (job.record["from_a_later_release"], job.record["zz"]) == ('{"deep":[1]}', "\x1f=?")
            if end == "failed":
                job = await world.made("a", plans.plan_retry(world.op()))
                assert job.record["zz"] == "\x1f=?"

    async def test_json_comes_back_byte_for_byte(self, world: World) -> None:
        for number, text in enumerate(
            ("[]", "{}", "0", '""', "false", "12345678901234567890", "1.10", '{"b":1,"a":[]}')
        ):
            await world.create(f"a{number}", caller_job(metadata=text))
            job = await world.made(f"a{number}", plans.plan_update(world.op(), "completed", result=text))
            assert (job.record["metadata"], job.record["result"]) == (text, text)
            stored = await world.job(f"a{number}")
            assert (stored.record["metadata"], stored.record["result"]) == (text, text)
            assert stored.to_json() == job.to_json()

    async def test_a_large_result_is_kept_whole(self, world: World) -> None:
        await world.create("a", caller_job())
        text = '"' + "x" * (1 << 20) + '"'
        await world.do("a", plans.plan_update(world.op(), "completed", result=text))
        assert (await world.job("a")).record["result"] == text

    @pytest.mark.parametrize(
        "job_id", ["a", "A.b_c:d-e", "x" * 128, "..", "00000000-0000-7000-8000-000000000000", "%s"]
    )
    async def test_any_id_is_only_a_name(self, world: World, job_id: str) -> None:
        await world.create(job_id, worker_job())
        await world.create("other", worker_job())
        token = token_of(await world.start(job_id))
        await world.do(job_id, plans.plan_complete(world.op(), token, None, {}))
        assert (await world.job(job_id)).job_id == job_id
        assert [e.job_id for e in await world.store.events(job_id)] == [job_id] * 3
        await world.do(job_id, plans.plan_delete(world.op()))
        assert await world.store.get(job_id) is None
        assert (await world.job("other")).status.value == "pending"

    async def test_a_refusal_names_the_holder_of_the_key(self, world: World) -> None:
        await world.create("a", worker_job(unique_key="k"))
        outcome = await world.attempt("b", plans.plan_create(worker_job(unique_key="k"), world.op()))
        assert (outcome.accepted, outcome.job, outcome.holder) == (False, None, "a")
        outcome = await world.attempt("a", plans.plan_create(worker_job(unique_key="k"), world.op()))
        assert (outcome.accepted, _status(outcome.job)) == (False, "pending")
        await world.do("a", plans.plan_cancel(world.op()))
        await world.create("b", worker_job(unique_key="k"))
        outcome = await world.attempt("c", plans.plan_create(worker_job(unique_key="k"), world.op()))
        assert outcome.holder == "b"

    async def test_a_deleted_job_is_gone_with_all_that_belongs_to_it(self, world: World) -> None:
        await world.create("a", worker_job(unique_key="k", labels="owner=ana", stalled="s"))
        await world.do("a", plans.plan_delete(world.op()))
        await world.refused("a", plans.plan_delete(world.op()))
        assert await world.store.get("a") is None
        assert await world.store.events("a") == []
        assert await world.store.counts() == {}
        assert await world.claim() == []
        await world.create("b", worker_job(unique_key="k"))


def _status(job: Job | None) -> str | None:
    return job.status.value if job is not None else None


def _crash(world: World, token: str) -> Change:
    return plans.plan_crash(world.op(), token, report={}, last=2, **CRASH)


def _fail(world: World, token: str) -> Change:
    return plans.plan_fail(world.op(), token, report={}, delay=0, error="no", failure='{"kind":"error"}')


def _reopen(world: World) -> Change:
    return plans.plan_reopen(world.op(), nonce=world.nonce(), lease=LONG, worker="w1", failure='{"kind":"lost"}')


async def _ready(world: World, kind: str) -> Change:
    """Bring job `a` to where a change of that kind is accepted; the change."""
    op = world.op()
    births: dict[str, Callable[[], Change]] = {
        "create": lambda: plans.plan_create(worker_job(), op),
        "track": lambda: plans.plan_track(track_job(), op, nonce="n", lease=LONG),
    }
    if kind in births:
        return births[kind]()
    fields = {"deliver": engine_job(), "update": caller_job(), "expire": worker_job(not_after="1")}
    await world.create("a", fields.get(kind, worker_job()))
    waiting: dict[str, Callable[[], Change]] = {
        "start": lambda: plans.plan_start(op, nonce="n", lease=LONG, worker="w"),
        "deliver": lambda: plans.plan_deliver(op, nonce="n", lease=LONG, worker="w"),
        "update": lambda: plans.plan_update(op, "running"),
        "expire": lambda: plans.plan_expire(op, **FAILURE),
        "cancel": lambda: plans.plan_cancel(op),
    }
    if kind in waiting:
        return waiting[kind]()
    token = token_of(await world.start("a", lease=0))
    if kind == "receipt":
        await world.do("a", plans.plan_cancel(world.op()))
    if kind == "retry":
        await world.do("a", ENDS["failed"](world.op(), token))
    return {
        "report": lambda: plans.plan_report(op, token, REPORT),
        "log": lambda: plans.plan_log(op, token, '{"lines":[]}'),
        "checkpoint": lambda: plans.plan_checkpoint(op, token, "1", {}),
        "complete": lambda: ENDS["completed"](op, token),
        "fail": lambda: ENDS["failed"](op, token),
        "again": lambda: plans.plan_fail(op, token, report={}, delay=0, error="no", failure="{}"),
        "release": lambda: plans.plan_release(op, token, {}),
        "receipt": lambda: plans.plan_receipt(op, token, "cooperative", confirmed=True),
        "retry": lambda: plans.plan_retry(op),
        "lost": lambda: plans.plan_lost(op, crashes_left=2, **CRASH),
    }[kind]()
