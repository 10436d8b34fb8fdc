"""Guards and operations on the reference interpreter, by the tables that every store is tested with."""

from __future__ import annotations

import pytest

from milepost.core.transitions.change import Branch, Change, Const, TransitionType
from milepost.core.transitions.operations import match_branch
from milepost.testing.conformance.harness import change_with, create_record, guarded_change
from milepost.testing.conformance.operations import GUARDS, OPS
from tests.core.fake_store import FakeStore


@pytest.mark.parametrize("word", list(GUARDS))
def test_guard_truth_table(word: str) -> None:
    for guard, fields, values, holds in GUARDS[word]:
        paper = FakeStore()
        paper.apply("a", create_record(paper.operation_id(), **fields))
        assert paper.apply("a", guarded_change(paper.operation_id(), guard, *values)).accepted is holds, (
            guard,
            fields,
            values,
        )


@pytest.mark.parametrize("word", list(OPS))
def test_operation_changes_only_named_field(word: str) -> None:
    for ops, fields, values, wanted in OPS[word]:
        paper = FakeStore()
        paper.apply("a", create_record(paper.operation_id(), **fields))
        assert paper.apply("a", change_with(paper.operation_id(), *ops, values=values)).accepted
        assert {name: paper.records["a"].get(name) for name in wanted} == wanted, (ops, fields, values)


def test_unknown_word_raises_assertion_error() -> None:
    paper = FakeStore()
    paper.apply("a", create_record(paper.operation_id()))
    with pytest.raises(AssertionError, match="maybe"):
        paper.apply("a", guarded_change(paper.operation_id(), ("maybe", "x")))
    with pytest.raises(AssertionError, match="frob"):
        paper.apply("a", change_with(paper.operation_id(), ("frob", "x")))


def test_applied_branch_index_is_recorded() -> None:
    paper = FakeStore()
    paper.apply("a", create_record(paper.operation_id()))
    transition = TransitionType("two", (Branch(("running",), event="e"), Branch(("pending",), event="e")))
    change = Change(transition, (), paper.operation_id())
    assert paper.apply("a", change).branch == 1
    assert paper.apply("a", change).branch == 1
    assert paper.apply("a", change).repeated


def test_match_branch_changes_nothing() -> None:
    paper = FakeStore()
    paper.apply("a", create_record(paper.operation_id(), x="1"))
    before = dict(paper.records["a"])
    assert match_branch(change_with("op"), "a", paper.records["a"], paper) == 0
    assert paper.records["a"] == before


def test_event_carries_emitted_fields() -> None:
    paper = FakeStore()
    paper.apply("a", create_record(paper.operation_id()))
    transition = TransitionType(
        "tells",
        (
            Branch(
                ("pending",),
                (),
                (("set", "x", Const("1")), ("set", "y", Const(""))),
                "noted",
                "list",
                ("x", "y", "z"),
                0,
            ),
        ),
    )
    paper.apply("a", Change(transition, ("{}",), paper.operation_id()))
    effect = paper.effects[-1]
    assert (effect.event, effect.keep, effect.version, effect.text) == ("noted", "list", 2, {"x": "1", "data": "{}"})
    paper.apply("a", Change(transition, (None,), paper.operation_id()))
    assert paper.effects[-1].text == {"x": "1"}
