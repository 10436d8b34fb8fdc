"""Every change in every job state, as the lifecycle allows it, and one scenario that checks a store against it.

The table is written by hand on purpose, and not derived from the transitions.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost.core import transitions as plans
from milepost.core.transitions.operations import Change
from milepost.testing.conformance.harness import LONG, Scenarios, StoreFixture, caller_job, track_job, worker_job
from milepost.testing.conformance.job_states import ALL_JOB_STATES, JOB_STATES, reach

Plan = Callable[[str, str], Change]
"""(operation id, token) -> change."""

FAILURE = {"error": "no", "failure": '{"kind":"error"}'}
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
    "track": lambda operation_id, token: plans.plan_track(track_job(), operation_id, nonce="nonce-fresh", lease=LONG),
    "start": lambda operation_id, token: plans.plan_start(operation_id, nonce="nonce-fresh", lease=LONG, worker="w2"),
    "deliver": lambda operation_id, token: plans.plan_deliver(
        operation_id, nonce="nonce-fresh", lease=LONG, worker="w2"
    ),
    "dispatch": lambda operation_id, token: plans.plan_dispatch(operation_id, 1_000_000),
    "dispatched": lambda operation_id, token: plans.plan_dispatched(operation_id, 1_000_000),
    "undispatchable": lambda operation_id, token: plans.plan_undispatchable(operation_id, 1_000_000, "missing"),
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
    "log": lambda operation_id, token: plans.plan_log(operation_id, token, '{"lines":[]}'),
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
    "crash": lambda operation_id, token: plans.plan_crash(operation_id, token, report={}, last=2, **CRASH),
    "lease expired": lambda operation_id, token: plans.plan_lease_expired(operation_id, crashes_left=2, **CRASH),
    "lease expired, uncharged": lambda operation_id, token: plans.plan_lease_expired(
        operation_id, crashes_left=None, **CRASH
    ),
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

ALLOWED: dict[str, dict[str, str]] = {
    "create": {"pending": "missing: nothing ghost"},
    "create (caller)": {"pending": "missing: nothing ghost"},
    "track": {"running": "missing: nothing"},
    "start": {"running": "worker: pending"},
    "deliver": {"running": "external: pending due"},
    "dispatch": {"pending": "external: due backoff"},
    "dispatched": {"pending": "external: pending due backoff late early blocked"},
    "undispatchable": {"pending": "external: pending due backoff late early blocked"},
    "rejected": {"failed": "external: pending due backoff late early blocked"},
    "adopt": {"running": "manual: pending"},
    "resume": {"running": "track: expired failed cancelled"},
    "resume, dead": {"running": "track: running expired failed cancelled"},
    "report": {"running": _RUNS},
    "stage": {"running": _RUNS},
    "stalled": {"running": _RUNS},
    "checkpoint": {"running": _RUNS},
    "log": {
        "running": _RUNS,
        "pending": "manual: blocked; worker: blocked; external: blocked",
        "cancelled": "track: stopping overdue; worker: stopping overdue; external: stopping overdue",
    },
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
    "release": {"pending": _LEASED_RUNS},
    "release, still running": {"pending": _LEASED_RUNS},
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
        "; worker: pending late early blocked; external: pending due backoff late early blocked"
    },
    "self-cancel": {"cancelled": _RUNS},
    "delete": {"": "manual: *; track: *; worker: *; external: *"},
    "retry": {"pending": _ENDED},
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
