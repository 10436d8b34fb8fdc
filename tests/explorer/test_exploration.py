"""All states of one job with two workers, a caller and a sweeper keep every rule, and an end can be reached from each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from milepost.core.transitions.change import Change
from tests.explorer import abstraction
from tests.explorer.actors import Budgets
from tests.explorer.exploration import Exploration, Explorer, Path


def shown(path: Path) -> str:
    """Return a path as a line."""
    return ", ".join(f"{a.name}{'' if a.worker < 0 else f' {a.worker}'}{' (twice)' if a.again else ''}" for a in path)


def assert_sound(found: Exploration) -> None:
    assert found.complete
    assert [f"{one.rule}: {one.text}, after: {shown(one.path)}" for one in found.violations] == []
    assert [shown(path) for path in found.stuck[:3]] == []
    assert [(shown(one), shown(other)) for one, other in found.unequal[:3]] == []


def test_cancelled_and_lost_runs_keep_every_rule() -> None:
    found = Explorer(Budgets(cancels=1), attempts=1, compare=200).run()
    assert_sound(found)
    assert found.states > 10_000
    assert found.compared > 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budgets", "states"),
    [
        (Budgets(crashes=1, cancels=1), 40_000),
    ],
    ids=str,
)
def test_faults_and_requests_keep_every_rule(budgets: Budgets, states: int) -> None:
    found = Explorer(budgets, attempts=1).run()
    assert_sound(found)
    assert found.states > states


def without(*names: str) -> Callable[[Change], Change]:
    """Return an alteration after which some transitions are always refused."""

    def alter(change: Change) -> Change:
        known = change.transition
        refused = type(known)(known.name, (), known.retention)
        return change._replace(transition=refused) if known.name in names else change

    return alter


def test_job_that_cannot_end_is_found() -> None:
    """Control: a job that neither starts nor expires stays as it is."""
    found = Explorer(Budgets(), alter=without("start", "expire")).run()
    assert found.complete
    assert min(map(len, found.stuck)) == 1


def test_states_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: if the number of attempts does not count, states are taken as equal that continue in different ways."""
    monkeypatch.setattr(abstraction, "RELEVANT", {n: c for n, c in abstraction.RELEVANT.items() if n != "attempt"})
    assert Explorer(Budgets(), compare=5).run(most=1_500).unequal
