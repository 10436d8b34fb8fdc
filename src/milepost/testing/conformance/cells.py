"""Every change in every situation: what lifecycle.md allows, written out by hand, and one scenario that holds a store to it.

Not derived from the lifecycle's own tables, which is the point of it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost.core import lifecycle as plans
from milepost.core.change import Change
from milepost.testing.conformance.harness import LONG, Scenarios, World, caller_job, track_job, worker_job
from milepost.testing.conformance.situations import EVERYWHERE, SITUATIONS, reach

Plan = Callable[[str, str], Change]
"""(operation id, token) -> change."""

FAILURE = {"error": "no", "failure": '{"kind":"error"}'}
CRASH = {**FAILURE, "crash_loop": '{"kind":"crash_loop"}'}


def fail(op: str, token: str, delay: int | None = None, *, stopping: bool = False) -> Change:
    """A run fails: for good, or with `delay` microseconds before the next attempt."""
    return plans.plan_fail(
        op, token, error="no", failure='{"kind":"error"}', report={}, delay=delay, stopping=stopping, why="timeout"
    )


PLANS: dict[str, Plan] = {
    "create": lambda op, token: plans.plan_create(worker_job(), op),
    "create (caller)": lambda op, token: plans.plan_create(caller_job(), op),
    "track": lambda op, token: plans.plan_track(track_job(), op, nonce="nonce-fresh", lease=LONG),
    "start": lambda op, token: plans.plan_start(op, nonce="nonce-fresh", lease=LONG, worker="w2"),
    "deliver": lambda op, token: plans.plan_deliver(op, nonce="nonce-fresh", lease=LONG, worker="w2"),
    "hand over": lambda op, token: plans.plan_hand_over(op, 1_000_000),
    "handed over": lambda op, token: plans.plan_handed(op, 1_000_000),
    "stranded": lambda op, token: plans.plan_stranded(op, 1_000_000, "nobody"),
    "adopt": lambda op, token: plans.plan_adopt(op, nonce="nonce-fresh", lease=LONG, worker="w2"),
    "reopen": lambda op, token: plans.plan_reopen(op, nonce="nonce-fresh", lease=LONG, worker="w2", failure="{}"),
    "reopen, dead": lambda op, token: plans.plan_reopen(
        op, nonce="nonce-fresh", lease=LONG, worker="w2", failure="{}", dead=token
    ),
    "report": lambda op, token: plans.plan_report(op, token, {"progress": "0.5"}),
    "stage": lambda op, token: plans.plan_report(op, token, {"progress": "0.5"}, "stage"),
    "stalled": lambda op, token: plans.plan_report(op, token, {"stalled": "slow"}, "stalled"),
    "checkpoint": lambda op, token: plans.plan_checkpoint(op, token, "7", {}),
    "log": lambda op, token: plans.plan_log(op, token, '{"lines":[]}'),
    "complete": lambda op, token: plans.plan_complete(op, token, "1", {}),
    "fail": fail,
    "fail, again": lambda op, token: fail(op, token, 0),
    "fail, still going": lambda op, token: fail(op, token, stopping=True),
    "fail, again, still going": lambda op, token: fail(op, token, 0, stopping=True),
    "release": lambda op, token: plans.plan_release(op, token, {}),
    "release, still going": lambda op, token: plans.plan_release(op, token, {}, stopping=True),
    "crash": lambda op, token: plans.plan_crash(op, token, report={}, last=2, **CRASH),
    "lost": lambda op, token: plans.plan_lost(op, crashes_left=2, **CRASH),
    "lost, uncharged": lambda op, token: plans.plan_lost(op, crashes_left=None, **CRASH),
    "expire": lambda op, token: plans.plan_expire(op, **FAILURE),
    "quiet": lambda op, token: plans.plan_quiet(op, reason="no update", **FAILURE),
    "update": lambda op, token: plans.plan_update(op, None, message="m"),
    "update to pending": lambda op, token: plans.plan_update(op, "pending"),
    "update to running": lambda op, token: plans.plan_update(op, "running"),
    "update to completed": lambda op, token: plans.plan_update(op, "completed", result="1"),
    "update to failed": lambda op, token: plans.plan_update(op, "failed", error="no"),
    "cancel": lambda op, token: plans.plan_cancel(op, by="bob"),
    "cancel, own": lambda op, token: plans.plan_cancel_own(op, token, {}, by="bob", why="Ctrl-C"),
    "delete": lambda op, token: plans.plan_delete(op),
    "retry": lambda op, token: plans.plan_retry(op),
    "receipt": lambda op, token: plans.plan_receipt(op, token, "cooperative", confirmed=True),
    "forget": lambda op, token: plans.plan_receipt(op, token, "forgotten", confirmed=False),
    "run out": lambda op, token: plans.plan_run_out(op, token),
}

# driver: situations. "*" is every situation of the driver.
_LEASED_RUNS = "worker: running spent fragile expired brittle dying crumbling; engine: running expired"
_RUNS = f"track: running expired; {_LEASED_RUNS}"
_ENDED = "worker: failed cancelled stopping overdue; engine: failed cancelled stopping overdue"
_RECEIPT = {
    "": "nobody: ghost",
    "pending": "caller: blocked; worker: blocked; engine: blocked",
    "cancelled": "track: stopping overdue; worker: stopping overdue; engine: stopping overdue",
}

ALLOWED: dict[str, dict[str, str]] = {
    "create": {"pending": "nobody: nothing ghost"},
    "create (caller)": {"pending": "nobody: nothing ghost"},
    "track": {"running": "nobody: nothing"},
    "start": {"running": "worker: pending"},
    "deliver": {"running": "engine: pending due"},
    "hand over": {"pending": "engine: due backoff"},
    "handed over": {"pending": "engine: pending due backoff late early blocked"},
    "stranded": {"pending": "engine: pending due backoff late early blocked"},
    "adopt": {"running": "caller: pending"},
    "reopen": {"running": "track: expired failed cancelled"},
    "reopen, dead": {"running": "track: running expired failed cancelled"},
    "report": {"running": _RUNS},
    "stage": {"running": _RUNS},
    "stalled": {"running": _RUNS},
    "checkpoint": {"running": _RUNS},
    "log": {
        "running": _RUNS,
        "pending": "caller: blocked; worker: blocked; engine: blocked",
        "cancelled": "track: stopping overdue; worker: stopping overdue; engine: stopping overdue",
    },
    "complete": {"completed": _RUNS},
    "fail": {"failed": _RUNS},
    "fail, still going": {"failed": _RUNS},
    "fail, again": {
        "pending": "worker: running fragile expired brittle dying crumbling; engine: running expired",
        "failed": "worker: spent; track: running expired",
    },
    "fail, again, still going": {
        "pending": "worker: running fragile expired brittle dying crumbling; engine: running expired",
        "failed": "worker: spent; track: running expired",
    },
    "release": {"pending": _LEASED_RUNS},
    "release, still going": {"pending": _LEASED_RUNS},
    "crash": {
        "pending": "worker: running spent expired; engine: running expired",
        "failed": "worker: fragile brittle dying crumbling; track: running expired",
    },
    "lost": {
        "pending": "worker: expired; engine: expired",
        "failed": "worker: brittle crumbling; track: expired",
    },
    "lost, uncharged": {
        "pending": "worker: expired crumbling; engine: expired",
        "failed": "worker: brittle; track: expired",
    },
    "expire": {"failed": "worker: late; engine: late"},
    "quiet": {"running": "caller: quiet", "failed": "caller: quiet_fails"},
    "update": {"pending": "caller: pending blocked", "running": "caller: running watched quiet quiet_fails"},
    "update to pending": {"pending": "caller: pending blocked"},
    "update to running": {"running": "caller: pending blocked running watched quiet quiet_fails"},
    "update to completed": {"completed": "caller: pending blocked running watched quiet quiet_fails"},
    "update to failed": {"failed": "caller: pending blocked running watched quiet quiet_fails"},
    "cancel": {
        "cancelled": f"caller: pending blocked running watched quiet quiet_fails; {_RUNS}"
        "; worker: pending late early blocked; engine: pending due backoff late early blocked"
    },
    "cancel, own": {"cancelled": _RUNS},
    "delete": {"": "caller: *; track: *; worker: *; engine: *"},
    "retry": {"pending": _ENDED},
    "receipt": _RECEIPT,
    "forget": _RECEIPT,
    "run out": {"cancelled": "track: overdue; worker: overdue; engine: overdue"},
}
"""plan -> target -> where it is accepted; refused everywhere else. The target "" is no record."""


def expected(plan: str, driver: str, situation: str) -> str | None:
    """The status after a change, or None when it is to be refused."""
    for target, places in ALLOWED[plan].items():
        for place in places.split(";"):
            name, _, words = place.partition(":")
            if name.strip() == driver and (words.split() == ["*"] or situation in words.split()):
                return target
    return None


class Cells(Scenarios):
    """One scenario for each plan: the whole row of the table."""

    @pytest.mark.parametrize("plan", list(PLANS))
    async def test_each_change_goes_where_the_lifecycle_says_and_nowhere_else(self, world: World, plan: str) -> None:
        for number, (driver, situation) in enumerate(EVERYWHERE):
            job_id = f"{driver}.{situation}.{number}"
            token = await reach(world, job_id, driver, situation)
            outcome = await world.attempt(job_id, PLANS[plan](world.op(), token))
            status = outcome.job.status.value if outcome.job is not None else ""
            found = status if outcome.accepted else None
            assert found == expected(plan, driver, situation), (
                f"{plan} of a {driver} job that is {situation}: {found!r}"
            )

    @pytest.mark.parametrize("driver", ["track", "worker", "engine"])
    async def test_nothing_that_a_run_writes_is_accepted_with_another_token(self, world: World, driver: str) -> None:
        for situation in SITUATIONS[driver]:
            await reach(world, situation, driver, situation)
            for name, plan in PLANS.items():
                if plan("op", "a").values == plan("op", "b").values:
                    continue  # not a run's change
                if name == "reopen, dead" and situation in ("expired", "failed", "cancelled"):
                    continue  # as without a token
                outcome = await world.attempt(situation, plan(world.op(), "1:forged-token"))
                assert not outcome.accepted, f"{name} of a {driver} job that is {situation}, with a forged token"
