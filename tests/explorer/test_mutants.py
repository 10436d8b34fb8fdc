"""Controls: an exploration finds a guard that is taken out of the lifecycle."""

from __future__ import annotations

import pytest

from tests.explorer.mutants import mutants

pytestmark = pytest.mark.slow

FOUND = (
    "progress (progress), without token 0",
    "log (log), without token 0",
    "log (log), without stopping 0",
    "checkpoint (checkpoint), without token 0",
    "complete (completed), without token 0",
    "fail (retrying), without token 0",
    "fail (retrying), without lt attempt max_attempts",
    "fail (failed), without token 0",
    "release (released), without token 0",
    "self_cancel (cancelled), without token 0",
    "start (running), without ahead not_after",
    "receipt (no event), without stopping 0",
)
"""Guards of which an exploration of a few thousand states sees that they are missing."""


def test_missing_guards_are_found() -> None:
    by_name = {one.name: one for one in mutants()}
    assert [name for name in FOUND if by_name[name].search() is None] == []
