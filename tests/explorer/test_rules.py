"""Controls: each rule rejects a step that breaks it, and accepts the same step done right."""

from __future__ import annotations

from typing import Any

import pytest

from milepost.core.transitions import plan_delete
from milepost.core.transitions.change import DrainingLease
from tests.explorer import rules
from tests.explorer.actors import Run, Step
from tests.explorer.rules import RULES, Rule

NOW = 1_000_000
OLD, LIVE = "1:n1", "2:n2"
DRAINING = DrainingLease(OLD, NOW)


def record(status: str, **fields: str) -> dict[str, str]:
    base = {"type": "t", "run_by": "worker", "status": status, "progress": "0", "created": "1"}
    if status == "running":
        base |= {"started": "2", "token": LIVE, "lease": str(NOW)}
    return {**base, **fields}


def step(name: str, before: dict[str, str] | None, after: dict[str, str] | None, **other: Any) -> Step:
    facts: dict[str, Any] = {"stopping_before": None, "stopping": None, "accepted": True, "repeated": False, "now": NOW}
    return Step(name, plan_delete("op"), before, after, **{**facts, **other})


RUNNING, PENDING, FAILED = record("running"), record("pending"), record("failed", completed="3")
CASES: dict[Rule, tuple[Step, Step]] = {
    rules.legal_move: (step("report", RUNNING, PENDING), step("release", RUNNING, PENDING)),
    rules.no_stale_write: (
        step("complete", RUNNING, RUNNING, token=OLD),
        step("complete", RUNNING, RUNNING, token=LIVE),
    ),
    rules.refused_writes_nothing: (
        step("cancel", PENDING, record("pending", error="e"), accepted=False),
        step("cancel", PENDING, PENDING, accepted=False),
    ),
    rules.applied_once: (
        step("retry", FAILED, PENDING, delivered_again=True, accepted_at_first=True),
        step("retry", FAILED, FAILED, delivered_again=True, accepted_at_first=True, repeated=True),
    ),
    rules.no_run_of_a_late_claim: (
        step("start", PENDING, RUNNING, delivered_again=True),
        step("start", PENDING, RUNNING),
    ),
    rules.consistent_record: (
        step("start", PENDING, {name: text for name, text in RUNNING.items() if name != "lease"}),
        step("start", PENDING, RUNNING),
    ),
    rules.budgets_kept: (
        step("start", PENDING, record("running", attempt="3", max_attempts="2")),
        step("start", PENDING, record("running", attempt="2", max_attempts="2")),
    ),
    rules.no_run_beside_draining_lease: (
        step("start", PENDING, RUNNING, stopping=DRAINING),
        step("cancel", RUNNING, record("cancelled", completed="3"), stopping=DRAINING),
    ),
    rules.starts_in_time: (
        step("start", record("pending", not_after=str(NOW)), RUNNING),
        step("start", record("pending", not_before=str(NOW)), RUNNING),
    ),
    rules.lost_only_when_expired: (
        step("lease_expired", record("running", lease=str(NOW + 1)), PENDING),
        step("lease_expired", RUNNING, PENDING),
    ),
    rules.stop_is_seen_before_it_is_confirmed: (
        step("receipt", FAILED, record("failed", completed="3", stop_confirmed="1")),
        step("receipt", FAILED, record("failed", completed="3", stop_confirmed="1", stop_at="3")),
    ),
    rules.one_receipt: (
        step("receipt", record("cancelled", stop_confirmed="1", stop_token=OLD), None, token=OLD),
        step("receipt", record("cancelled", stop_confirmed="0", stop_token=OLD), None, token=OLD),
    ),
    rules.draining_lease_ends_by_its_run: (
        step("receipt", PENDING, PENDING, stopping_before=DRAINING, token=LIVE),
        step("receipt", PENDING, PENDING, stopping_before=DRAINING, token=OLD),
    ),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_rejects_what_breaks_it(rule: Rule) -> None:
    wrong, right = CASES[rule]
    assert rule(wrong)
    assert rule(right) is None


def test_stop_is_not_confirmed_while_the_code_runs() -> None:
    after = record("cancelled", stop_confirmed="1", stop_at="3", stop_token=OLD)
    running = step("receipt", FAILED, after, workers=(Run("running", OLD), None))
    assert rules.stop_is_seen_before_it_is_confirmed(running)
    assert rules.stop_is_seen_before_it_is_confirmed(running._replace(token=OLD)) is None, "it was sent by that code"


def test_deadline_and_draining_lease_end_only_in_time() -> None:
    early = step("expire", record("pending", not_after=str(NOW + 1)), FAILED)
    assert rules.lost_only_when_expired(early)
    drained = step("receipt", PENDING, PENDING, stopping_before=DrainingLease(OLD, NOW + 1))
    assert rules.lost_only_when_expired(drained)
