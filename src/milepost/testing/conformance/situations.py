"""The situations that a job can be in, and how each is reached by changes alone. Knows no store: it asks for `do`."""

from __future__ import annotations

from typing import Protocol

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.core.job import Job
from milepost.testing.conformance.harness import LONG, caller_job, engine_job, track_job, worker_job

SITUATIONS: dict[str, tuple[str, ...]] = {
    "nobody": ("nothing", "ghost"),
    "caller": ("pending", "blocked", "running", "watched", "quiet", "quiet_fails", "completed", "failed", "cancelled"),
    "track": ("running", "expired", "completed", "failed", "cancelled", "stopping", "overdue"),
    "worker": (
        "pending", "late", "early", "blocked", "running", "spent", "fragile", "expired", "brittle", "dying", "crumbling",
        "completed", "failed", "cancelled", "stopping", "overdue",
    ),
    "engine": (
        "pending", "due", "backoff", "late", "early", "blocked", "running", "expired", "completed", "failed", "cancelled",
        "stopping", "overdue",
    ),
}  # fmt: skip
"""driver -> situations:

nothing      no record                          ghost        deleted while it ran: only a stopping lease is left
pending      may start now                      late         `not_after` has passed
due          to be handed to its engine         backoff      the same, but failed, and `not_before` is ahead
early        `not_before` is ahead              blocked      retried, or made again, while a stopping lease is in the way
running      under a live lease, or its caller  spent        the last attempt of its budget
expired      the lease has run out              brittle      the same, of a handler with on_lost="fail"
fragile      running, with on_lost="fail"       watched      running, created with on_stale="fail"
dying        running, the crash budget is spent crumbling    the same, and the lease has run out
quiet        nothing said for too long          quiet_fails  the same, created with on_stale="fail"
stopping     cancelled, its code still runs     overdue      the same, and the stopping lease has run out
"""

EVERYWHERE = tuple((driver, situation) for driver, names in SITUATIONS.items() for situation in names)

FAR = 3_600_000_000


class Doer(Protocol):
    """What a situation is reached with: a `World` over a store, or the pure functions of the core."""

    def op(self) -> str: ...
    def nonce(self) -> str: ...
    async def do(self, job_id: str, change: Change) -> Job | None: ...


async def reach(doer: Doer, job_id: str, driver: str, situation: str) -> str:
    """Bring a job into a situation; the token that its run has, or had, or one that nobody ever had."""
    if driver == "nobody":
        if situation == "nothing":
            return "1:nobodyhasit"
        token = await reach(doer, job_id, "worker", "running")
        await doer.do(job_id, plans.plan_delete(doer.op()))
        return token
    lease = 0 if situation in ("expired", "brittle", "crumbling", "overdue") else LONG
    fields = _fields(driver, situation)
    if driver == "caller" and situation == "blocked":
        token = await reach(doer, job_id, "nobody", "ghost")
        await doer.do(job_id, plans.plan_create(fields, doer.op()))
        return token
    if driver == "track":
        job = await doer.do(job_id, plans.plan_track(fields, doer.op(), nonce=doer.nonce(), lease=lease))
    else:
        job = await doer.do(job_id, plans.plan_create(fields, doer.op()))
        if situation in ("pending", "due", "late", "early"):
            return "1:nobodyhasit"
        if situation == "cancelled":
            await doer.do(job_id, plans.plan_cancel(doer.op()))
            return "1:nobodyhasit"
        job = await doer.do(job_id, _start(doer, driver, lease))
    assert job is not None
    token = job.record.get("token", "1:nobodyhasit")
    for change in _onwards(doer, driver, situation, token):
        await doer.do(job_id, change)
    return token


def _fields(driver: str, situation: str) -> dict[str, str]:
    extra = {"not_after": "1"} if situation == "late" else {"not_before": str(1 << 52)} if situation == "early" else {}
    if driver == "worker":
        crashes = {"crashes": "2"} if situation in ("dying", "crumbling") else {}
        lost = {"on_lost": "fail"} if situation in ("brittle", "fragile") else {}
        return worker_job(attempts=1 if situation == "spent" else 2, **extra, **crashes, **lost)
    if driver == "engine":
        due = {"hand_over": "0"} if situation in ("due", "backoff") else {}
        return engine_job(**extra, **due)
    if driver == "track":
        return track_job()
    stale = {"stale_after": "0"} if situation.startswith("quiet") else {}
    fails = {"on_stale": "fail"} if situation in ("quiet_fails", "watched") else {}
    return caller_job(**extra, **stale, **fails)


def _start(doer: Doer, driver: str, lease: int) -> Change:
    if driver == "caller":
        return plans.plan_update(doer.op(), "running")
    plan = plans.plan_start if driver == "worker" else plans.plan_deliver
    return plan(doer.op(), nonce=doer.nonce(), lease=lease, worker="w1")


def _onwards(doer: Doer, driver: str, situation: str, token: str) -> list[Change]:
    """What comes after the start."""
    if driver == "caller":
        return [plans.plan_update(doer.op(), situation)] if situation in ("completed", "failed") else []
    match situation:
        case "completed":
            return [plans.plan_complete(doer.op(), token, '{"n":1}', {})]
        case "failed":
            return [plans.plan_fail(doer.op(), token, error="no", failure='{"kind":"error"}', report={})]
        case "backoff":
            fail = plans.plan_fail(doer.op(), token, error="no", failure='{"kind":"error"}', report={}, delay=FAR)
            return [fail]
        case "cancelled":
            return [plans.plan_cancel_own(doer.op(), token, {}, by="ana", why="Ctrl-C")]
        case "stopping" | "overdue":
            return [plans.plan_cancel(doer.op(), by="ana", why="enough")]
        case "blocked":
            return [plans.plan_cancel(doer.op()), plans.plan_retry(doer.op())]
    return []
