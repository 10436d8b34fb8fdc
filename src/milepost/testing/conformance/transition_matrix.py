"""Every change in every job state, as the lifecycle allows it, and one scenario that checks a store against it.

The table is written by hand on purpose, and not derived from the transitions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pytest

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.transitions.change import Change
from milepost.testing.conformance.harness import (
    LONG,
    Scenarios,
    StoreFixture,
    caller_job,
    queue_job,
    track_job,
    worker_job,
)

JOB_STATES: dict[str, tuple[str, ...]] = {
    "missing": ("nothing", "ghost"),
    "manual": ("pending", "blocked", "running", "watched", "quiet", "quiet_fails", "completed", "failed", "cancelled"),
    "track": ("running", "expired", "completed", "failed", "cancelled", "stopping", "overdue"),
    "worker": (
        "pending", "late", "early", "blocked", "running", "spent", "fragile", "expired", "brittle", "dying", "crumbling",
        "completed", "failed", "cancelled", "stopping", "overdue", "suspended",
    ),
    "external": (
        "pending", "due", "backoff", "late", "early", "blocked", "running", "expired", "completed", "failed", "cancelled",
        "stopping", "overdue", "suspended",
    ),
}  # fmt: skip
"""run by -> states:

nothing      no record                          ghost        deleted while it ran: only a draining lease is left
pending      may start now                      late         `not_after` has passed
due          to be dispatched                   backoff      the same, but failed, and `not_before` is ahead
early        `not_before` is ahead              blocked      retried, or created again, during a draining lease
running      with a live lease, or manual       spent        the last attempt of its budget
expired      the lease has expired              brittle      the same, of a handler with on_lost="fail"
fragile      running, with on_lost="fail"       watched      running, created with on_stale="fail"
dying        running, the crash budget is spent crumbling    the same, and the lease has expired
quiet        no update for too long             quiet_fails  the same, created with on_stale="fail"
stopping     cancelled, its code still runs     overdue      the same, and the draining lease has expired
suspended    pending within its attempt, and its time to wake has come
"""

ALL_JOB_STATES = tuple((run_by, state) for run_by, names in JOB_STATES.items() for state in names)

FAR = 3_600_000_000


class Applier(Protocol):
    """Applies changes: a `StoreFixture` over a store, or the pure functions of the core."""

    def operation_id(self) -> str: ...
    def nonce(self) -> str: ...
    async def do(self, job_id: str, change: Change) -> Job | None: ...


async def reach(applier: Applier, job_id: str, run_by: str, state: str) -> str:
    """Bring a job into a state, and return the current or last token of its run, or a token that never existed."""
    if run_by == "missing":
        if state == "nothing":
            return "1:unknownnonc"
        token = await reach(applier, job_id, "worker", "running")
        await applier.do(job_id, plans.plan_delete(applier.operation_id()))
        return token
    lease = 0 if state in ("expired", "brittle", "crumbling", "overdue") else LONG
    fields = _fields(run_by, state)
    if run_by == "manual" and state == "blocked":
        token = await reach(applier, job_id, "missing", "ghost")
        await applier.do(job_id, plans.plan_create(fields, applier.operation_id()))
        return token
    if run_by == "track":
        job = await applier.do(
            job_id, plans.plan_track(fields, applier.operation_id(), nonce=applier.nonce(), lease=lease)
        )
    else:
        job = await applier.do(job_id, plans.plan_create(fields, applier.operation_id()))
        if state in ("pending", "due", "late", "early"):
            return "1:unknownnonc"
        if state == "cancelled":
            await applier.do(job_id, plans.plan_cancel(applier.operation_id()))
            return "1:unknownnonc"
        job = await applier.do(job_id, _start(applier, run_by, lease))
    assert job is not None
    token = job.record.get("token", "1:unknownnonc")
    for change in _onwards(applier, run_by, state, token):
        await applier.do(job_id, change)
    return token


def _fields(run_by: str, state: str) -> dict[str, str]:
    extra = {"not_after": "1"} if state == "late" else {"not_before": str(1 << 52)} if state == "early" else {}
    if run_by == "worker":
        crashes = {"crashes": "2"} if state in ("dying", "crumbling") else {}
        lost = {"on_lost": "fail"} if state in ("brittle", "fragile") else {}
        return worker_job(attempts=1 if state == "spent" else 2, **extra, **crashes, **lost)
    if run_by == "external":
        due = {"dispatch_after": "0"} if state in ("due", "backoff") else {}
        return queue_job(**extra, **due)
    if run_by == "track":
        return track_job()
    stale = {"stale_after": "0"} if state.startswith("quiet") else {}
    fails = {"on_stale": "fail"} if state in ("quiet_fails", "watched") else {}
    return caller_job(**extra, **stale, **fails)


def _start(applier: Applier, run_by: str, lease: int) -> Change:
    if run_by == "manual":
        return plans.plan_update(applier.operation_id(), "running")
    plan = plans.plan_start if run_by == "worker" else plans.plan_deliver
    return plan(applier.operation_id(), nonce=applier.nonce(), lease=lease, worker="w1")


def _onwards(applier: Applier, run_by: str, state: str, token: str) -> list[Change]:
    """Return the changes after the start."""
    if run_by == "manual":
        return [plans.plan_update(applier.operation_id(), state)] if state in ("completed", "failed") else []
    match state:
        case "completed":
            return [plans.plan_complete(applier.operation_id(), token, '{"n":1}', {})]
        case "failed":
            return [plans.plan_fail(applier.operation_id(), token, error="no", failure='{"kind":"error"}', report={})]
        case "backoff":
            fail = plans.plan_fail(
                applier.operation_id(), token, error="no", failure='{"kind":"error"}', report={}, delay=FAR
            )
            return [fail]
        case "cancelled":
            return [plans.plan_self_cancel(applier.operation_id(), token, {}, by="ana", why="Ctrl-C")]
        case "stopping" | "overdue":
            return [plans.plan_cancel(applier.operation_id(), by="ana", why="enough")]
        case "suspended":
            return [plans.plan_suspend(applier.operation_id(), token, {}, wake_at=1, ran=7)]
        case "blocked":
            return [plans.plan_cancel(applier.operation_id()), plans.plan_retry(applier.operation_id())]
    return []


Plan = Callable[[str, str], Change]
"""(operation id, token) -> change."""

FAILURE = {"error": "no", "failure": '{"kind":"error"}'}
QUESTION: dict[str, Any] = {"version": "", "questions": "[]", "data": "{}"}
CRASH = {**FAILURE, "crash_loop": '{"kind":"crash_loop"}'}


def fail(operation_id: str, token: str, delay: int | None = None, *, stopping: bool = False) -> Change:
    """Return the failure of a run, final or with `delay` microseconds before the next attempt."""
    return plans.plan_fail(
        operation_id,
        token,
        error="no",
        failure='{"kind":"error"}',
        report={},
        delay=delay,
        stopping=stopping,
        why="timeout",
    )


PLANS: dict[str, Plan] = {
    "create": lambda operation_id, token: plans.plan_create(worker_job(), operation_id),
    "create (caller)": lambda operation_id, token: plans.plan_create(caller_job(), operation_id),
    "fire": lambda operation_id, token: plans.plan_fire(
        worker_job(), operation_id, key="schedule/missing", before="0", after="1"
    ),
    "track": lambda operation_id, token: plans.plan_track(track_job(), operation_id, nonce="nonce-fresh", lease=LONG),
    "start": lambda operation_id, token: plans.plan_start(operation_id, nonce="nonce-fresh", lease=LONG, worker="w2"),
    "deliver": lambda operation_id, token: plans.plan_deliver(
        operation_id, nonce="nonce-fresh", lease=LONG, worker="w2"
    ),
    "dispatch": lambda operation_id, token: plans.plan_dispatch(operation_id, LONG),
    "dispatched": lambda operation_id, token: plans.plan_dispatched(operation_id, LONG),
    "undispatchable": lambda operation_id, token: plans.plan_undispatchable(operation_id, LONG, "missing"),
    "rejected": lambda operation_id, token: plans.plan_rejected(operation_id, **FAILURE),
    "adopt": lambda operation_id, token: plans.plan_adopt(operation_id, nonce="nonce-fresh", lease=LONG, worker="w2"),
    "resume": lambda operation_id, token: plans.plan_resume(
        operation_id, nonce="nonce-fresh", lease=LONG, worker="w2", failure="{}"
    ),
    "resume, dead": lambda operation_id, token: plans.plan_resume(
        operation_id, nonce="nonce-fresh", lease=LONG, worker="w2", failure="{}", dead=token
    ),
    "report": lambda operation_id, token: plans.plan_report(operation_id, token, {"progress": "0.5"}),
    "stage": lambda operation_id, token: plans.plan_report(operation_id, token, {"progress": "0.5"}, "stage"),
    "stalled": lambda operation_id, token: plans.plan_report(operation_id, token, {"stalled": "slow"}, "stalled"),
    "checkpoint": lambda operation_id, token: plans.plan_checkpoint(operation_id, token, "7", {}),
    "step": lambda operation_id, token: plans.plan_keep_step(operation_id, token, '{"values":[]}', '{"key":"a"}'),
    "log": lambda operation_id, token: plans.plan_log(operation_id, token, '{"lines":[]}'),
    "output": lambda operation_id, token: plans.plan_output(operation_id, token, key="k", chunk="{}", added=1),
    "complete": lambda operation_id, token: plans.plan_complete(operation_id, token, "1", {}),
    "complete without result": lambda operation_id, token: plans.plan_complete_without_result(
        operation_id, token, "result: not JSON", "<lock>", {}
    ),
    "fail": fail,
    "fail, again": lambda operation_id, token: fail(operation_id, token, 0),
    "fail, still running": lambda operation_id, token: fail(operation_id, token, stopping=True),
    "fail, again, still running": lambda operation_id, token: fail(operation_id, token, 0, stopping=True),
    "release": lambda operation_id, token: plans.plan_release(operation_id, token, {}),
    "release, still running": lambda operation_id, token: plans.plan_release(operation_id, token, {}, stopping=True),
    "suspend": lambda operation_id, token: plans.plan_suspend(operation_id, token, {}, wake_at=1, ran=7),
    "suspend, asking": lambda operation_id, token: plans.plan_suspend(
        operation_id, token, {}, wake_at=None, ran=7, asking="k"
    ),
    "suspend, asked above": lambda operation_id, token: plans.plan_suspend(
        operation_id, token, {}, wake_at=1, ran=7, asking="k", is_asked_above=True, start="1"
    ),
    "ask": lambda operation_id, token: plans.plan_ask(operation_id, token, key="k", expires=None, **QUESTION),
    "ask from below": lambda operation_id, token: plans.plan_ask_from_below(operation_id, **QUESTION),
    "settle question": lambda operation_id, token: plans.plan_settle_question(operation_id, token, key="k", **QUESTION),
    "answer": lambda operation_id, token: plans.plan_answer(operation_id, key="k", **QUESTION),
    "wake below": lambda operation_id, token: plans.plan_wake_below(operation_id, "k", data="{}"),
    "pause": lambda operation_id, token: plans.plan_pause(operation_id, by="bob", data="{}"),
    "resume paused": lambda operation_id, token: plans.plan_resume_paused(operation_id, data="{}"),
    "stopped for pause": lambda operation_id, token: plans.plan_stopped_for_pause(
        operation_id, token, {}, ran=7, how="cooperative"
    ),
    "crash": lambda operation_id, token: plans.plan_crash(operation_id, token, report={}, last=2, **CRASH),
    "lease expired": lambda operation_id, token: plans.plan_lease_expired(operation_id, crashes_left=2, **CRASH),
    "lease expired, uncharged": lambda operation_id, token: plans.plan_lease_expired(
        operation_id, crashes_left=None, **CRASH
    ),
    "release held": lambda operation_id, token: plans.plan_release_held(operation_id),
    "open batch": lambda operation_id, token: plans.plan_open_batch(operation_id),
    "close batch": lambda operation_id, token: plans.plan_close_batch(operation_id, "group:g", "closed"),
    "cancel orphan": lambda operation_id, token: plans.plan_cancel_orphan(operation_id),
    "flag cycle": lambda operation_id, token: plans.plan_flag_cycle(operation_id, 0, "why"),
    "no cycle": lambda operation_id, token: plans.plan_no_cycle(operation_id, 0),
    "retry child": lambda operation_id, token: plans.plan_retry_child(operation_id, run=("p", token), generation="1"),
    "expire": lambda operation_id, token: plans.plan_expire(operation_id, **FAILURE),
    "mark stale": lambda operation_id, token: plans.plan_mark_stale(operation_id, reason="no update", **FAILURE),
    "update": lambda operation_id, token: plans.plan_update(operation_id, None, message="m"),
    "update to pending": lambda operation_id, token: plans.plan_update(operation_id, "pending"),
    "update to running": lambda operation_id, token: plans.plan_update(operation_id, "running"),
    "update to completed": lambda operation_id, token: plans.plan_update(operation_id, "completed", result="1"),
    "update to failed": lambda operation_id, token: plans.plan_update(operation_id, "failed", error="no"),
    "cancel": lambda operation_id, token: plans.plan_cancel(operation_id, by="bob"),
    "self-cancel": lambda operation_id, token: plans.plan_self_cancel(operation_id, token, {}, by="bob", why="Ctrl-C"),
    "delete": lambda operation_id, token: plans.plan_delete(operation_id),
    "retry": lambda operation_id, token: plans.plan_retry(operation_id),
    "retry, wait": lambda operation_id, token: plans.plan_retry(operation_id, waits=True),
    "retry from start": lambda operation_id, token: plans.plan_retry(operation_id, from_start=True),
    "receipt": lambda operation_id, token: plans.plan_receipt(operation_id, token, "cooperative", confirmed=True),
    "receipt, forgotten": lambda operation_id, token: plans.plan_receipt(
        operation_id, token, "dropped_by_admin", confirmed=False
    ),
    "overrun": lambda operation_id, token: plans.plan_overrun(operation_id, token, '{"lines":[]}'),
    "drain timeout": lambda operation_id, token: plans.plan_drain_timeout(operation_id, token),
}

# run by: states. "*" is every state.
_LEASED_RUNS = "worker: running spent fragile expired brittle dying crumbling; external: running expired"
_RUNS = f"track: running expired; {_LEASED_RUNS}"
_ENDED = "worker: failed cancelled stopping overdue; external: failed cancelled stopping overdue"
_RECEIPT = {
    "": "missing: ghost",
    "pending": "manual: blocked; worker: blocked; external: blocked",
    "cancelled": "track: stopping overdue; worker: stopping overdue; external: stopping overdue",
}

_REPORTED_WHILE_STOPPING = {
    "running": _RUNS,
    "pending": "worker: blocked; external: blocked",
    "cancelled": "track: stopping overdue; worker: stopping overdue; external: stopping overdue",
}
_QUESTIONED = {
    "pending": "manual: pending blocked; worker: pending late early blocked suspended"
    "; external: pending due backoff late early blocked suspended",
    "running": f"manual: running watched quiet quiet_fails; {_RUNS}",
}
ALLOWED: dict[str, dict[str, str]] = {
    "create": {"pending": "missing: nothing ghost"},
    "create (caller)": {"pending": "missing: nothing ghost"},
    "fire": {},
    "track": {"running": "missing: nothing"},
    "start": {"running": "worker: pending suspended"},
    "deliver": {"running": "external: pending due suspended"},
    "dispatch": {"pending": "external: due backoff"},
    "dispatched": {"pending": "external: pending due backoff late early blocked suspended"},
    "undispatchable": {"pending": "external: pending due backoff late early blocked suspended"},
    "rejected": {"failed": "external: pending due backoff late early blocked suspended"},
    "adopt": {"running": "manual: pending"},
    "resume": {"running": "track: expired failed cancelled"},
    "resume, dead": {"running": "track: running expired failed cancelled"},
    **{key: {"running": _RUNS} for key in ("report", "stage", "stalled", "checkpoint", "step")},
    "log": _REPORTED_WHILE_STOPPING,
    "output": _REPORTED_WHILE_STOPPING,
    "complete": {"completed": _RUNS},
    "complete without result": {"completed": _RUNS},
    "fail": {"failed": _RUNS},
    "fail, still running": {"failed": _RUNS},
    "fail, again": {
        "pending": "worker: running fragile expired brittle dying crumbling; external: running expired",
        "failed": "worker: spent; track: running expired",
    },
    "fail, again, still running": {
        "pending": "worker: running fragile expired brittle dying crumbling; external: running expired",
        "failed": "worker: spent; track: running expired",
    },
    **{key: {"pending": _LEASED_RUNS} for key in ("release", "release, still running")},
    **{key: {"pending": _LEASED_RUNS} for key in ("suspend", "suspend, asking", "suspend, asked above")},
    "ask": {"running": _RUNS},
    "settle question": {"running": _RUNS},
    "ask from below": _QUESTIONED,
    "answer": _QUESTIONED,
    "wake below": {},
    "pause": {
        "pending": "worker: pending late early blocked suspended running spent fragile expired brittle dying crumbling"
        "; external: pending due backoff late early blocked suspended"
    },
    "resume paused": {},
    "stopped for pause": {},
    "crash": {
        "pending": "worker: running spent expired; external: running expired",
        "failed": "worker: fragile brittle dying crumbling; track: running expired",
    },
    "lease expired": {
        "pending": "worker: expired; external: expired",
        "failed": "worker: brittle crumbling; track: expired",
    },
    "lease expired, uncharged": {
        "pending": "worker: expired crumbling; external: expired",
        "failed": "worker: brittle; track: expired",
    },
    "expire": {"failed": "worker: late; external: late"},
    "mark stale": {"running": "manual: quiet", "failed": "manual: quiet_fails"},
    "update": {"pending": "manual: pending blocked", "running": "manual: running watched quiet quiet_fails"},
    "update to pending": {"pending": "manual: pending blocked"},
    "update to running": {"running": "manual: pending blocked running watched quiet quiet_fails"},
    "update to completed": {"completed": "manual: pending blocked running watched quiet quiet_fails"},
    "update to failed": {"failed": "manual: pending blocked running watched quiet quiet_fails"},
    "cancel": {
        "cancelled": f"manual: pending blocked running watched quiet quiet_fails; {_RUNS}"
        "; worker: pending late early blocked suspended; external: pending due backoff late early blocked suspended"
    },
    "self-cancel": {"cancelled": _RUNS},
    "release held": {},
    "open batch": {},
    "close batch": {},
    **{name: {} for name in ("cancel orphan", "flag cycle", "no cycle")},
    "retry child": {},
    "delete": {"": "manual: *; track: *; worker: *; external: *"},
    "retry": {"pending": _ENDED},
    "retry, wait": {"pending": _ENDED},
    "retry from start": {"pending": _ENDED},
    "receipt": _RECEIPT,
    "receipt, forgotten": _RECEIPT,
    "overrun": {
        "pending": "worker: blocked; external: blocked",
        "cancelled": "track: stopping overdue; worker: stopping overdue; external: stopping overdue",
    },
    "drain timeout": {"cancelled": "track: overdue; worker: overdue; external: overdue"},
}
"""plan -> target status -> the states in which it is accepted; it is refused in all others. "" is no record."""


def expected(plan: str, run_by: str, state: str) -> str | None:
    """Return the status after a change, or None if it must be refused."""
    for target, places in ALLOWED[plan].items():
        for place in places.split(";"):
            name, _, words = place.partition(":")
            if name.strip() == run_by and (words.split() == ["*"] or state in words.split()):
                return target
    return None


class TransitionMatrix(Scenarios):
    """One scenario per plan covers its row of the table."""

    @pytest.mark.parametrize("plan", list(PLANS))
    async def test_transition_follows_matrix_or_is_refused(self, fixture: StoreFixture, plan: str) -> None:
        for number, (run_by, state) in enumerate(ALL_JOB_STATES):
            job_id = f"{run_by}.{state}.{number}"
            token = await reach(fixture, job_id, run_by, state)
            outcome = await fixture.attempt(job_id, PLANS[plan](fixture.operation_id(), token))
            status = outcome.job.status.value if outcome.job is not None else ""
            found = status if outcome.accepted else None
            assert found == expected(plan, run_by, state), f"{plan} of a {run_by} job that is {state}: {found!r}"

    @pytest.mark.parametrize("run_by", ["track", "worker", "external"])
    async def test_run_with_wrong_token_writes_nothing(self, fixture: StoreFixture, run_by: str) -> None:
        for state in JOB_STATES[run_by]:
            await reach(fixture, state, run_by, state)
            for name, plan in PLANS.items():
                if plan("op", "a").values == plan("op", "b").values:
                    continue  # not a change of a run
                if name == "resume, dead" and state in ("expired", "failed", "cancelled"):
                    continue  # as without a token
                outcome = await fixture.attempt(state, plan(fixture.operation_id(), "1:forged-token"))
                assert not outcome.accepted, f"{name} of a {run_by} job that is {state}, with a forged token"
