"""Every plan in every situation, on the pure functions of the core."""

from __future__ import annotations

import pytest

from milepost.stores.driving import drive
from milepost.testing.conformance.cells import PLANS, expected
from milepost.testing.conformance.invariants import check_step
from milepost.testing.conformance.situations import EVERYWHERE, SITUATIONS, reach
from tests.core.paper import Paper


@pytest.mark.parametrize("plan", list(PLANS))
@pytest.mark.parametrize(("driver", "situation"), EVERYWHERE)
def test_a_change_goes_where_the_lifecycle_says_or_is_refused(plan: str, driver: str, situation: str) -> None:
    paper = Paper()
    token = drive(reach(paper, "a", driver, situation))
    before = paper.job("a")
    change = PLANS[plan](paper.op(), token)
    outcome = paper.apply("a", change)
    check_step(change, before, outcome, paper.job("a"))
    status = outcome.job.status.value if outcome.job is not None else ""
    assert (status if outcome.accepted else None) == expected(plan, driver, situation)


@pytest.mark.parametrize("driver", ["track", "worker", "engine"])
def test_a_run_with_another_token_writes_nothing(driver: str) -> None:
    for situation in SITUATIONS[driver]:
        for name, plan in PLANS.items():
            paper = Paper()
            drive(reach(paper, "a", driver, situation))
            free_to_all = name == "reopen, dead" and situation in ("expired", "failed", "cancelled")
            if plan("op", "x").values != plan("op", "y").values and not free_to_all:
                assert not paper.apply("a", plan(paper.op(), "1:forged")).accepted, (name, situation)
