"""Every plan in every job state, on the pure functions of the core."""

from __future__ import annotations

import pytest

from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import check_step
from milepost.testing.conformance.transition_matrix import ALL_JOB_STATES, JOB_STATES, PLANS, expected, reach
from tests.core.fake_store import FakeStore


@pytest.mark.parametrize("plan", list(PLANS))
@pytest.mark.parametrize(("run_by", "state"), ALL_JOB_STATES)
def test_transition_follows_matrix_or_is_refused(plan: str, run_by: str, state: str) -> None:
    paper = FakeStore()
    token = run_sync(reach(paper, "a", run_by, state))
    before = paper.job("a")
    change = PLANS[plan](paper.operation_id(), token)
    outcome = paper.apply("a", change)
    check_step(change, before, outcome, paper.job("a"))
    status = outcome.job.status.value if outcome.job is not None else ""
    assert (status if outcome.accepted else None) == expected(plan, run_by, state)


@pytest.mark.parametrize("run_by", ["track", "worker", "external"])
def test_run_with_wrong_token_writes_nothing(run_by: str) -> None:
    for state in JOB_STATES[run_by]:
        for name, plan in PLANS.items():
            paper = FakeStore()
            run_sync(reach(paper, "a", run_by, state))
            free_to_all = name == "resume, dead" and state in ("expired", "failed", "cancelled")
            if plan("op", "x").values != plan("op", "y").values and not free_to_all:
                assert not paper.apply("a", plan(paper.operation_id(), "1:forged")).accepted, (name, state)
