"""Every order of the events of a worker keeps its rules, and a turned comparison breaks one."""

from __future__ import annotations

import pytest

from milepost.worker import worker_state
from tests.explorer.comparisons import Comparison, comparisons
from tests.explorer.worker_orders import DEADLINE, enumerate_orders

EQUAL = {
    "now - self._finished[-1][0] < 0.001 as LtE": "ends are merged, or not, only if they are exactly a millisecond apart",
}
"""Turned comparisons that change nothing, and why."""
TURNED = [one for one in comparisons(worker_state) if one.name not in EQUAL and "_left" not in one.name]
"""The limit of jobs of a worker, `_left`, is not part of the enumeration."""


def test_every_order_keeps_the_rules() -> None:
    found = enumerate_orders(depth=10)
    assert (found.broken, found.path) == (None, ())
    assert found.states > 5_000


@pytest.mark.parametrize("turned", TURNED, ids=lambda turned: turned.name)
def test_turned_comparison_is_found(turned: Comparison) -> None:
    assert enumerate_orders(turned.load(START_DEADLINE=DEADLINE), depth=9).broken


def test_equal_comparisons_exist() -> None:
    assert EQUAL.keys() <= {one.name for one in comparisons(worker_state)}
