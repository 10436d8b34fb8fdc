"""The table of legal moves, its diagram, and the templates of plans."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from milepost.core import transitions
from milepost.core.transitions.change import Param
from milepost.core.transitions.table import MOVES, NONE, bind, branch, template
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance import transition_matrix
from milepost.testing.conformance.transition_matrix import ALL_JOB_STATES, reach
from tests.core.fake_store import FakeStore

ROOT = Path(__file__).resolve().parents[2]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lifecycle_diagram", ROOT / "scripts" / "lifecycle_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lifecycle_diagram_matches_table() -> None:
    drawn = script().draw()
    assert (ROOT / "docs" / "lifecycle.svg").read_text() == drawn, "run scripts/lifecycle_diagram.py"
    for words in MOVES.values():
        assert f">{words}</text>" in drawn


def test_diagram_refuses_move_without_route(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script()
    monkeypatch.delitem(module.ROUTES, (NONE, "pending"))
    with pytest.raises(ValueError, match="pending"):
        module.draw()


def test_completed_is_final() -> None:
    assert [move for move in MOVES if move[0] == "completed"] == []
    ended = set(transitions.TERMINAL)
    assert [move for move in MOVES if move[0] in ended and move[1] in ended] == []


def test_table_lists_exactly_the_planned_moves() -> None:
    made = set()
    for name, plan in transition_matrix.PLANS.items():
        for run_by, state in ALL_JOB_STATES:
            paper = FakeStore()
            token = run_sync(reach(paper, "a", run_by, state))
            before = paper.records.get("a", {}).get("status", NONE)
            outcome = paper.apply("a", plan(paper.operation_id(), token))
            after = paper.records.get("a", {}).get("status", NONE)
            if outcome.accepted and before != after and name != "delete":
                made.add((before, after))
    assert made == set(MOVES)


def test_branch_with_illegal_move_raises() -> None:
    for source, target in (
        ("completed", "pending"),
        ("failed", "completed"),
        ("cancelled", "failed"),
        ("pending", "x"),
    ):
        with pytest.raises(KeyError):
            branch((source,), target)


def test_bind_refuses_unknown_value() -> None:
    form = template("f", ("a",), branch(("pending",), ops=(("set", "x", Param("a")),)))
    assert bind(form, "op", a="1").values == ("1",)
    assert bind(form, "op").values == (None,)
    with pytest.raises(KeyError, match="b"):
        bind(form, "op", b="1")
    with pytest.raises(ValueError):
        template("f", (), branch(("pending",), ops=(("set", "x", Param("a")),)))


def test_report_refuses_other_fields() -> None:
    with pytest.raises(KeyError, match="status"):
        transitions.plan_report("op", "1:a", {"status": "completed"})
    with pytest.raises(KeyError, match="result"):
        transitions.plan_fail("op", "1:a", error="", failure="", report={"result": "1"})


def test_plans_share_transition_type() -> None:
    """Stores compile a transition once, by its identity."""
    for name, plan in transition_matrix.PLANS.items():
        assert plan("op1", "1:a").transition is plan("op2", "1:b").transition, name
