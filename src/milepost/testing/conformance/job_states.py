"""The states that a job can be in, and the changes that reach each of them."""

from __future__ import annotations

from typing import Protocol

from milepost.core import transitions as plans
from milepost.core.job import Job
from milepost.core.transitions.operations import Change
from milepost.testing.conformance.harness import LONG, caller_job, queue_job, track_job, worker_job

JOB_STATES: dict[str, tuple[str, ...]] = {
    "missing": ("nothing", "ghost"),
    "manual": ("pending", "blocked", "running", "watched", "quiet", "quiet_fails", "completed", "failed", "cancelled"),
    "track": ("running", "expired", "completed", "failed", "cancelled", "stopping", "overdue"),
    "worker": (
        "pending", "late", "early", "blocked", "running", "spent", "fragile", "expired", "brittle", "dying", "crumbling",
        "completed", "failed", "cancelled", "stopping", "overdue",
    ),
    "external": (
        "pending", "due", "backoff", "late", "early", "blocked", "running", "expired", "completed", "failed", "cancelled",
        "stopping", "overdue",
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
        case "blocked":
            return [plans.plan_cancel(applier.operation_id()), plans.plan_retry(applier.operation_id())]
    return []
