"""Large values: which fields may be stored apart, and how a record is split."""

from __future__ import annotations

import pytest

from milepost.core.record_codec import LARGE, LARGE_BYTES, set_apart
from milepost.core.transitions import plan_checkpoint, plan_complete
from milepost.core.transitions.change import Field
from milepost.core.values import LARGE_MARK, LargeValue
from milepost.testing.conformance.transition_matrix import PLANS


@pytest.mark.parametrize("name", sorted(PLANS))
def test_transitions_only_set_and_clear_large_fields(name: str) -> None:
    """A guard, another field or an event would read the marker in the place of the value."""
    for branch in PLANS[name]("op000001", "1:token").transition.branches:
        read = {part.name for part in (*branch.guards, *branch.ops) for part in part if isinstance(part, Field)}
        assert not LARGE & {*read, *branch.emit}
        assert not LARGE & {str(guard[1]) for guard in branch.guards if guard[0] in ("eq", "ne", "lt", "ge")}
        assert not LARGE & {str(op[1]) for op in branch.ops if op[0] not in ("set", "clear") and len(op) > 1}


def test_record_is_split_at_the_limit() -> None:
    change = plan_checkpoint("op000001", "1:token", "", {})
    small, large = "x" * LARGE_BYTES, "x" * (LARGE_BYTES + 1)
    record = {"checkpoint": small}
    assert set_apart(change, record, {}) == ({}, [])
    record = {"checkpoint": large}
    assert set_apart(change, record, {}) == ({"checkpoint": large}, [])
    assert LargeValue.read(record["checkpoint"]) == LargeValue(LARGE_BYTES + 1)
    assert set_apart(change, dict(record), record) == ({}, [])
    assert set_apart(change, {"checkpoint": small}, record) == ({}, ["checkpoint"])
    assert set_apart(plan_complete("op000001", "1:token", "1", {}), {}, record) == ({}, ["checkpoint"])


def test_size_is_in_bytes() -> None:
    record = {"checkpoint": "é" * LARGE_BYTES}
    kept, _ = set_apart(plan_checkpoint("op000001", "1:token", "", {}), record, {})
    assert (record["checkpoint"], len(kept)) == (f"{LARGE_MARK}{2 * LARGE_BYTES}", 1)


def test_json_of_a_user_is_no_marker() -> None:
    assert LargeValue.read('"\\u001a12"') is None
    assert LargeValue.load({"$large_bytes": 5}) == LargeValue(5)
    assert LargeValue.load({"$large_bytes": 5, "more": 1}) == {"$large_bytes": 5, "more": 1}
