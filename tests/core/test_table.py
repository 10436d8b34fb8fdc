"""The table of moves, the picture of it, and what plans are made of."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from milepost.core import lifecycle
from milepost.core.lifecycle.table import MOVES, NONE, case, fill, template
from milepost.stores.driving import drive
from milepost.testing.conformance import cells
from milepost.testing.conformance.situations import EVERYWHERE, reach
from tests.core.paper import Paper

ROOT = Path(__file__).resolve().parents[2]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lifecycle_diagram", ROOT / "scripts" / "lifecycle_diagram.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_what_the_script_makes_of_the_table() -> None:
    drawn = script().draw()
    assert (ROOT / "docs" / "lifecycle.svg").read_text() == drawn, "run scripts/lifecycle_diagram.py"
    for words in MOVES.values():
        assert f">{words}</text>" in drawn


def test_a_move_without_a_route_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module = script()
    monkeypatch.delitem(module.ROUTES, (NONE, "pending"))
    with pytest.raises(ValueError, match="pending"):
        module.draw()


def test_nothing_leaves_completed_and_no_job_ends_twice() -> None:
    assert [move for move in MOVES if move[0] == "completed"] == []
    ended = set(lifecycle.TERMINAL)
    assert [move for move in MOVES if move[0] in ended and move[1] in ended] == []


def test_every_move_of_the_table_is_made_by_some_plan_and_none_beside_it() -> None:
    made = set()
    for name, plan in cells.PLANS.items():
        for driver, situation in EVERYWHERE:
            paper = Paper()
            token = drive(reach(paper, "a", driver, situation))
            before = paper.records.get("a", {}).get("status", NONE)
            outcome = paper.apply("a", plan(paper.op(), token))
            after = paper.records.get("a", {}).get("status", NONE)
            if outcome.accepted and before != after and name != "delete":
                made.add((before, after))
    assert made == set(MOVES)


def test_a_case_that_makes_another_move_is_an_error_when_it_is_built() -> None:
    for source, target in (
        ("completed", "pending"),
        ("failed", "completed"),
        ("cancelled", "failed"),
        ("pending", "x"),
    ):
        with pytest.raises(KeyError):
            case((source,), target)


def test_a_value_that_no_place_was_made_for_is_an_error() -> None:
    form = template("f", ("a",), case(("pending",), ops=(("set", "x", "$a"),)))
    assert fill(form, "op", a="1").values == ("1",)
    assert fill(form, "op").values == (None,)
    with pytest.raises(KeyError, match="b"):
        fill(form, "op", b="1")
    with pytest.raises(ValueError):
        template("f", (), case(("pending",), ops=(("set", "x", "$a"),)))


def test_a_report_may_only_carry_what_a_run_says_of_itself() -> None:
    with pytest.raises(KeyError, match="status"):
        lifecycle.plan_report("op", "1:a", {"status": "completed"})
    with pytest.raises(KeyError, match="result"):
        lifecycle.plan_fail("op", "1:a", error="", failure="", report={"result": "1"})


def test_plans_of_one_kind_share_one_shape() -> None:
    """Stores compile a shape once, by its identity."""
    for name, plan in cells.PLANS.items():
        assert plan("op1", "1:a").shape is plan("op2", "1:b").shape, name
