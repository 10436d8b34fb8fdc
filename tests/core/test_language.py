"""The words of changes on paper: the same tables that every store is held to."""

from __future__ import annotations

import pytest

from milepost.core.change import OPS_KEPT, Case, Change, Shape, fit, repeated
from milepost.testing.conformance.language import GUARDS, OPS, asked, made, told
from tests.core.paper import Paper


@pytest.mark.parametrize("word", list(GUARDS))
def test_a_guard_holds_or_not(word: str) -> None:
    for guard, fields, values, holds in GUARDS[word]:
        paper = Paper()
        paper.apply("a", made(paper.op(), **fields))
        assert paper.apply("a", asked(paper.op(), guard, *values)).accepted is holds, (guard, fields, values)


@pytest.mark.parametrize("word", list(OPS))
def test_an_operation_changes_what_it_names(word: str) -> None:
    for ops, fields, values, wanted in OPS[word]:
        paper = Paper()
        paper.apply("a", made(paper.op(), **fields))
        assert paper.apply("a", told(paper.op(), *ops, values=values)).accepted
        assert {name: paper.records["a"].get(name) for name in wanted} == wanted, (ops, fields, values)


def test_an_unknown_word_is_a_bug_and_says_so() -> None:
    paper = Paper()
    paper.apply("a", made(paper.op()))
    with pytest.raises(AssertionError, match="maybe"):
        paper.apply("a", asked(paper.op(), ("maybe", "x")))
    with pytest.raises(AssertionError, match="frob"):
        paper.apply("a", told(paper.op(), ("frob", "x")))


def test_a_record_remembers_its_birth_and_its_last_four_operations() -> None:
    paper = Paper()
    birth = made("00000000")
    paper.apply("a", birth)
    changes = [told(f"{n:08d}") for n in range(1, OPS_KEPT + 2)]
    for change in changes:
        paper.apply("a", change)
    record = paper.records["a"]
    assert [repeated(change, record) for change in changes] == [-1, 0, 0, 0, 0]
    assert repeated(birth, record) == 0
    assert repeated(told("other000"), record) == -1
    assert repeated(birth, None) == -1


def test_an_operation_id_is_only_found_whole() -> None:
    """Ids that lie across the borders of others must not be taken for them."""
    paper = Paper()
    paper.apply("a", made("birthbir"))
    paper.apply("a", told("aaaabbbb"))
    paper.apply("a", told("ccccdddd"))
    for across in ("aaabbbb0", "bbbb0ccc", "0ccccddd", "cccdddd0"):
        assert repeated(told(across), paper.records["a"]) == -1


def test_the_index_of_the_performed_case_is_remembered() -> None:
    paper = Paper()
    paper.apply("a", made(paper.op()))
    shape = Shape("two", (Case(("running",), event="e"), Case(("pending",), event="e")))
    change = Change(shape, (), paper.op())
    assert paper.apply("a", change).case == 1
    assert paper.apply("a", change).case == 1
    assert paper.apply("a", change).repeated


def test_to_ask_changes_nothing() -> None:
    paper = Paper()
    paper.apply("a", made(paper.op(), x="1"))
    before = dict(paper.records["a"])
    assert fit(told("op"), "a", paper.records["a"], paper) == 0
    assert paper.records["a"] == before


def test_an_event_says_what_the_case_emits() -> None:
    paper = Paper()
    paper.apply("a", made(paper.op()))
    shape = Shape(
        "tells", (Case(("pending",), (), (("set", "x", "=1"), ("set", "y", "=")), "told", "list", ("x", "y", "z"), 0),)
    )
    paper.apply("a", Change(shape, ("{}",), paper.op()))
    effect = paper.effects[-1]
    assert (effect.event, effect.keep, effect.version, effect.text) == ("told", "list", 2, {"x": "1", "data": "{}"})
    paper.apply("a", Change(shape, (None,), paper.op()))
    assert paper.effects[-1].text == {"x": "1"}
