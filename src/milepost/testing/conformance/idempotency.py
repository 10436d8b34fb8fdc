"""Repeated operations, as after a lost reply, have no second effect."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from milepost.core import transitions as plans
from milepost.core.transitions.change import Change
from milepost.core.transitions.operation_ids import CALLERS_KEPT
from milepost.stores.protocol import Claim, Write
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    StoreFixture,
    caller_job,
    queue_job,
    token_of,
    track_job,
    worker_job,
)
from milepost.testing.conformance.runs import ENDS, REPORT
from milepost.testing.conformance.transition_matrix import CRASH, FAILURE, fail


class Idempotency(Scenarios):
    """A repetition with the same operation id gets the same answer and has no second effect."""

    @pytest.mark.parametrize(
        "kind", ["create", "track", "start", "deliver", "report", "log", "checkpoint", "step", "complete", "fail", "again",
                 "release", "suspend", "cancel", "retry", "update", "receipt", "lost", "expire"],
    )  # fmt: skip
    async def test_repeated_change_is_answered_again(self, fixture: StoreFixture, kind: str) -> None:
        change = await _ready(fixture, kind)
        first = await fixture.attempt("a", change)
        events = await fixture.store.events("a")
        feed = (await fixture.store.feed("0")).position
        await fixture.tick()
        again = await fixture.attempt("a", change)
        assert first.accepted
        assert (again.accepted, again.repeated, again.branch) == (True, True, first.branch)
        assert again.job is not None
        assert first.job is not None
        assert dict(again.job.record) == dict(first.job.record)
        assert await fixture.store.events("a") == events
        assert (await fixture.store.feed("0")).position == feed

    @pytest.mark.parametrize("kind", ["report", "log", "checkpoint", "step"])
    async def test_repeated_report_never_goes_back(self, fixture: StoreFixture, kind: str) -> None:
        """An old message, log line, checkpoint or step was restored when more than four writes came in between."""
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))

        def write(number: int) -> Change:
            match kind:
                case "report":
                    return plans.plan_report(fixture.operation_id(), token, {"message": str(number)})
                case "log":
                    return plans.plan_log(fixture.operation_id(), token, f'{{"lines":[{number}]}}')
                case "step":
                    return plans.plan_keep_step(fixture.operation_id(), token, str(number), f'{{"key":"{number}"}}')
            return plans.plan_checkpoint(fixture.operation_id(), token, str(number), {"message": str(number)})

        first = write(0)
        await fixture.do("a", first)
        for number in range(1, 13):
            await fixture.do("a", write(number))
        before = await fixture.store.events("a")
        outcome = await fixture.attempt("a", first)
        assert (outcome.accepted, outcome.repeated) == (True, True)
        record = (await fixture.job("a")).record
        assert record.get("message", "12") == "12"
        assert record.get("checkpoint", "12") == "12"
        assert record.get("steps", "12") == "12"
        assert await fixture.store.events("a") == before

    async def test_repeated_log_of_released_run_is_recognised(self, fixture: StoreFixture) -> None:
        """Lines were recorded twice if they were sent again after a release of the run, whose code had not stopped yet."""
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        log = plans.plan_log(fixture.operation_id(), token, '{"lines":["one"]}')
        await fixture.do("a", log)
        await fixture.do("a", plans.plan_release(fixture.operation_id(), token, {}, stopping=True))
        outcome = await fixture.attempt("a", log)
        assert (outcome.accepted, outcome.repeated) == (True, True)
        late = plans.plan_log(fixture.operation_id(), token, '{"lines":["two"]}')
        await fixture.do("a", late)
        assert (await fixture.attempt("a", late)).repeated
        assert [event.kind for event in await fixture.store.events("a")].count("log") == 2

    async def test_late_note_of_a_refused_message_is_recognised(self, fixture: StoreFixture) -> None:
        """A job whose message had been sent since was said to wait for its task queue again, if the note came once more."""
        await fixture.create("a", queue_job(dispatch_after="0"))
        note = plans.plan_undispatchable(fixture.operation_id(), 0, "no broker")
        await fixture.do("a", note)
        await fixture.tick()
        await fixture.do("a", plans.plan_dispatch(fixture.operation_id(), LONG))
        sent = await fixture.made("a", plans.plan_dispatched(fixture.operation_id(), LONG))
        again = await fixture.attempt("a", note)
        assert (again.accepted, again.repeated, again.branch) == (True, True, 0)
        assert dict((await fixture.job("a")).record) == dict(sent.record)

    async def test_log_of_deleted_job_does_not_reach_the_next(self, fixture: StoreFixture) -> None:
        """A job that was created under the id of a deleted one got the last lines of its code, which had not stopped yet."""
        await fixture.create("a", worker_job())
        log = plans.plan_log(fixture.operation_id(), token_of(await fixture.start("a")), '{"lines":["one"]}')
        await fixture.do("a", log)
        await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        await fixture.create("a", worker_job())
        await fixture.refused("a", log)

    async def test_reports_checkpoints_and_steps_are_independent(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a"))
        report = plans.plan_report(fixture.operation_id(), token, {"stages": "[]"})
        step = plans.plan_keep_step(fixture.operation_id(), token, "[1]", '{"key":"k"}')
        checkpoint = plans.plan_checkpoint(fixture.operation_id(), token, "1", {})
        for change in (checkpoint, step, report):
            outcome = await fixture.attempt("a", change)
            assert (outcome.accepted, outcome.repeated) == (True, False)
        for change in (report, checkpoint, step):
            outcome = await fixture.attempt("a", change)
            assert (outcome.accepted, outcome.repeated) == (True, True)

    @pytest.mark.parametrize("kind", ["report", "log", "checkpoint", "step"])
    async def test_repeated_write_of_lost_run_is_refused(self, fixture: StoreFixture, kind: str) -> None:
        await fixture.create("a", worker_job())
        token = token_of(await fixture.start("a", lease=0))
        stale = {
            "report": plans.plan_report(fixture.operation_id(), token, {"message": "old"}),
            "log": plans.plan_log(fixture.operation_id(), token, '{"lines":[]}'),
            "checkpoint": plans.plan_checkpoint(fixture.operation_id(), token, "1", {}),
            "step": plans.plan_keep_step(fixture.operation_id(), token, "[1]", '{"key":"k"}'),
        }[kind]
        await fixture.do("a", stale)
        await fixture.do("a", plans.plan_lease_expired(fixture.operation_id(), crashes_left=2, **CRASH))
        await fixture.refused("a", stale)
        token = token_of(await fixture.start("a"))
        await fixture.refused("a", stale)
        await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {"message": "new"}))
        await fixture.do("a", plans.plan_checkpoint(fixture.operation_id(), token, "2", {}))
        await fixture.do("a", plans.plan_keep_step(fixture.operation_id(), token, "[2]", '{"key":"k"}'))
        await fixture.refused("a", stale)

    @pytest.mark.parametrize("crashes_left", [None, 0, 2])
    @pytest.mark.parametrize("kind", ["retried", "failed", "tracked"])
    async def test_late_recovery_of_lost_run_spares_the_next(
        self, fixture: StoreFixture, kind: str, crashes_left: int | None
    ) -> None:
        """A duplicate of the sweeper's request arrived when the lease of the next run had expired too."""
        if kind == "tracked":
            token = token_of(await fixture.track("a", track_job(), lease=0))
        else:
            await fixture.create("a", worker_job(on_lost="fail") if kind == "failed" else worker_job())
            token = token_of(await fixture.start("a", lease=0))
        operation_id = fixture.operation_id()
        recovery = plans.plan_lease_expired(operation_id, token=token, crashes_left=crashes_left, **CRASH)
        job = await fixture.made("a", recovery)
        if kind == "tracked":
            resume = plans.plan_resume(
                fixture.operation_id(), nonce=fixture.nonce(), lease=0, worker="w1", failure="{}"
            )
            await fixture.do("a", resume)
        else:
            if job.is_terminal:
                await fixture.do("a", plans.plan_retry(fixture.operation_id()))
            await fixture.start("a", lease=0)
        await fixture.tick()
        await fixture.refused("a", recovery)

    @pytest.mark.parametrize("ended", [False, True])
    async def test_repeated_retry_is_recognised_after_attempt(self, fixture: StoreFixture, ended: bool) -> None:
        """A retry with a lost reply ran the job twice, because progress reports had displaced its operation id."""
        await fixture.create("a", worker_job())
        await fixture.do("a", ENDS["failed"](fixture.operation_id(), token_of(await fixture.start("a"))))
        retry = plans.plan_retry(fixture.operation_id())
        await fixture.do("a", retry)
        token = token_of(await fixture.start("a"))
        for number in range(10):
            await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {"progress": str(number / 10)}))
        if ended:
            await fixture.do("a", ENDS["failed"](fixture.operation_id(), token))
        outcome = await fixture.attempt("a", retry)
        assert (outcome.accepted, outcome.repeated) == (True, True)
        assert (await fixture.job("a")).status.value == ("failed" if ended else "running")

    async def test_repeated_cancel_is_recognised_after_retry(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        cancel = plans.plan_cancel(fixture.operation_id())
        await fixture.do("a", cancel)
        await fixture.do("a", plans.plan_retry(fixture.operation_id()))
        token = token_of(await fixture.start("a"))
        for _ in range(5):
            await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {}))
        assert (await fixture.attempt("a", cancel)).repeated
        assert (await fixture.job("a")).status.value == "running"

    async def test_repeated_pause_and_resume_are_recognised_after_others(self, fixture: StoreFixture) -> None:
        """A repetition paused a job again that had been resumed since, or resumed one that had been paused since."""
        await fixture.create("a", worker_job())
        pause = plans.plan_pause(fixture.operation_id(), by="ana", data="{}")
        resume = plans.plan_resume_paused(fixture.operation_id(), data="{}")
        await fixture.do("a", pause)
        await fixture.do("a", resume)
        token = token_of(await fixture.start("a"))
        for _ in range(5):
            await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {}))
        assert (await fixture.attempt("a", pause)).repeated
        assert (await fixture.job("a")).status.value == "running"
        await fixture.do("a", plans.plan_pause(fixture.operation_id(), by="bob", data="{}"))
        paused = dict((await fixture.job("a")).record)
        assert (await fixture.attempt("a", resume)).repeated
        assert dict((await fixture.job("a")).record) == paused

    async def test_repeated_close_of_a_batch_is_recognised(self, fixture: StoreFixture) -> None:
        """As after a lost reply: also when the batch has ended, and after many reports that it is open."""
        await fixture.create("g", {**caller_job(labels=":group=g"), "type": "batch"})
        await fixture.do("g", plans.plan_open_batch(fixture.operation_id()))
        await fixture.create("a", worker_job(labels=":group=g"))
        close = plans.plan_close_batch(fixture.operation_id(), "group:g", "closed")
        await fixture.do("g", close)
        assert (await fixture.attempt("g", close)).repeated
        token = token_of(await fixture.start("a"))
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token, "1", {}))
        ended = dict((await fixture.job("g")).record)
        assert ended["status"] == "completed"
        assert (await fixture.attempt("g", close)).repeated
        assert dict((await fixture.job("g")).record) == ended

    async def test_repeated_update_is_recognised_after_others(self, fixture: StoreFixture) -> None:
        """A manual update with a lost reply restored an old message over newer ones."""
        await fixture.create("a", caller_job())
        await fixture.do("a", plans.plan_update(fixture.operation_id(), "running"))
        first = plans.plan_update(fixture.operation_id(), None, message="first")
        await fixture.do("a", first)
        for number in range(5):
            await fixture.do("a", plans.plan_update(fixture.operation_id(), None, message=f"later {number}"))
        assert (await fixture.attempt("a", first)).repeated
        assert (await fixture.job("a")).message == "later 4"

    async def test_caller_requests_outlive_record(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        cancel = plans.plan_cancel(fixture.operation_id())
        await fixture.do("a", cancel)
        first = plans.plan_delete(fixture.operation_id())
        await fixture.do("a", first)
        for _ in range(2):
            await fixture.create("a", worker_job())
            assert (await fixture.attempt("a", cancel)).repeated
            assert (await fixture.attempt("a", first)).repeated
            assert (await fixture.job("a")).status.value == "pending"
            await fixture.do("a", plans.plan_delete(fixture.operation_id()))

    async def test_reports_are_never_rate_limited(self, fixture: StoreFixture) -> None:
        await fixture.create("a", caller_job())
        await fixture.do("a", plans.plan_update(fixture.operation_id(), "running"))
        for _ in range(CALLERS_KEPT + 1):
            await fixture.do("a", plans.plan_update(fixture.operation_id(), None, message="m"))

    async def test_create_operation_is_always_recognised(self, fixture: StoreFixture) -> None:
        change = plans.plan_create(worker_job(), fixture.operation_id())
        await fixture.do("a", change)
        token = token_of(await fixture.start("a"))
        for _ in range(5):
            await fixture.do("a", plans.plan_report(fixture.operation_id(), token, {}))
        await fixture.do("a", plans.plan_complete(fixture.operation_id(), token, None, {}))
        outcome = await fixture.attempt("a", change)
        assert (outcome.accepted, outcome.repeated) == (True, True)
        outcome = await fixture.attempt("a", plans.plan_create(worker_job(), fixture.operation_id()))
        assert (outcome.accepted, outcome.repeated) == (False, False)

    async def test_repeated_submit_restores_no_deleted_job(self, fixture: StoreFixture) -> None:
        change = plans.plan_create(worker_job(), fixture.operation_id())
        await fixture.do("a", change)
        await fixture.do("a", plans.plan_delete(fixture.operation_id()))
        outcome = await fixture.attempt("a", change)
        assert (outcome.accepted, outcome.repeated, outcome.job) == (False, True, None)
        assert await fixture.store.get("a") is None
        assert await fixture.store.counts() == {}
        await fixture.create("a", worker_job())
        assert (await fixture.job("a")).version == 1

    async def test_repeated_delete_keeps_new_job_of_id(self, fixture: StoreFixture) -> None:
        await fixture.create("a", worker_job())
        change = plans.plan_delete(fixture.operation_id())
        assert (await fixture.attempt("a", change)).accepted
        outcome = await fixture.attempt("a", change)
        assert (outcome.accepted, outcome.repeated, outcome.job) == (True, True, None)
        await fixture.create("a", worker_job())
        outcome = (await fixture.store.apply([Write("a", change)])).outcomes[0]
        assert (outcome.accepted, outcome.repeated) == (True, True)
        assert (await fixture.job("a")).status.value == "pending"

    async def test_repeated_claim_returns_same_jobs(self, fixture: StoreFixture) -> None:
        for name in "abcd":
            await fixture.create(name, worker_job())
        claim = Claim("w1", {"q": None}, fixture.starts(2), fixture.operation_id())
        first = (await fixture.store.apply([], claim)).claimed
        again = (await fixture.store.apply([], claim)).claimed
        assert [j.job_id for j in first] == ["a", "b"]
        assert [dict(j.record) for j in again] == [dict(j.record) for j in first]
        assert [j.job_id for j in await fixture.claim(most=5)] == ["c", "d"]
        again = (await fixture.store.apply([], claim)).claimed
        assert again == [], "only the answer to the last claim of a worker is kept"

    async def test_late_duplicate_claim_starts_nothing(self, fixture: StoreFixture) -> None:
        """A claim that arrived after the next one started jobs that no worker ran; each was charged a crash or failed."""

        async def claimed(claim: Claim) -> list[str]:
            create = Write(f"beside{next(beside)}", plans.plan_create(caller_job(), fixture.operation_id()))
            answer = await fixture.store.apply([create], claim)
            assert answer.outcomes[0].accepted
            return [job.job_id for job in answer.claimed]

        beside = itertools.count()
        for name in "ab":
            await fixture.create(name, worker_job())
        found = Claim("w1", {"q": None}, fixture.starts(1), fixture.operation_id(), number=1)
        empty = Claim("w1", {"other": None}, fixture.starts(1), fixture.operation_id(), number=2)
        last = Claim("w1", {"q": None}, fixture.starts(1), fixture.operation_id(), number=3)
        assert [await claimed(claim) for claim in (found, empty, last)] == [["a"], [], ["b"]]
        await fixture.create("c", worker_job())
        await fixture.create("d", worker_job("other"))
        assert [await claimed(claim) for claim in (found, empty, last)] == [[], [], ["b"]]
        for name in "cd":
            assert (await fixture.job(name)).status.value == "pending"
        assert await claimed(replace(found, worker="w2", starts=fixture.starts(1, "w2"))) == ["c"]


async def _ready(fixture: StoreFixture, kind: str) -> Change:
    """Bring job `a` into a state that accepts this kind of change, and return the change."""
    operation_id = fixture.operation_id()
    new_jobs: dict[str, Callable[[], Change]] = {
        "create": lambda: plans.plan_create(worker_job(), operation_id),
        "track": lambda: plans.plan_track(track_job(), operation_id, nonce="n", lease=LONG),
    }
    if kind in new_jobs:
        return new_jobs[kind]()
    fields = {"deliver": queue_job(), "update": caller_job(), "expire": worker_job(not_after="1")}
    await fixture.create("a", fields.get(kind, worker_job()))
    waiting: dict[str, Callable[[], Change]] = {
        "start": lambda: plans.plan_start(operation_id, nonce="n", lease=LONG, worker="w"),
        "deliver": lambda: plans.plan_deliver(operation_id, nonce="n", lease=LONG, worker="w"),
        "update": lambda: plans.plan_update(operation_id, "running"),
        "expire": lambda: plans.plan_expire(operation_id, **FAILURE),
        "cancel": lambda: plans.plan_cancel(operation_id),
    }
    if kind in waiting:
        return waiting[kind]()
    token = token_of(await fixture.start("a", lease=0))
    if kind == "receipt":
        await fixture.do("a", plans.plan_cancel(fixture.operation_id()))
    if kind == "retry":
        await fixture.do("a", ENDS["failed"](fixture.operation_id(), token))
    return {
        "report": lambda: plans.plan_report(operation_id, token, REPORT),
        "log": lambda: plans.plan_log(operation_id, token, '{"lines":[]}'),
        "checkpoint": lambda: plans.plan_checkpoint(operation_id, token, "1", {}),
        "step": lambda: plans.plan_keep_step(operation_id, token, "[1]", '{"key":"k"}'),
        "complete": lambda: ENDS["completed"](operation_id, token),
        "fail": lambda: ENDS["failed"](operation_id, token),
        "again": lambda: fail(operation_id, token, 0),
        "release": lambda: plans.plan_release(operation_id, token, {}),
        "suspend": lambda: plans.plan_suspend(operation_id, token, {}, wake_at=1, ran=1),
        "receipt": lambda: plans.plan_receipt(operation_id, token, "cooperative", confirmed=True),
        "retry": lambda: plans.plan_retry(operation_id),
        "lost": lambda: plans.plan_lease_expired(operation_id, crashes_left=2, **CRASH),
    }[kind]()
