"""Controls: an exploration finds a guard that is taken out of the lifecycle."""

from __future__ import annotations

import pytest

from tests.explorer.mutants import mutants

pytestmark = pytest.mark.slow

FOUND = (
    "progress, branch 0, without token 0",
    "log, branch 0, without token 0",
    "log, branch 1, without stopping 0",
    "checkpoint, branch 0, without token 0",
    "complete, branch 0, without token 0",
    "fail, branch 0, without token 0",
    "fail, branch 0, without lt attempt max_attempts",
    "fail, branch 1, without token 0",
    "release, branch 0, without token 0",
    "self_cancel, branch 0, without token 0",
    "start, branch 0, without ahead not_after",
    "receipt, branch 1, without stopping 0",
)
"""Guards of which an exploration of a few thousand states sees that they are missing."""


def test_missing_guards_are_found() -> None:
    by_name = {one.name: one for one in mutants()}
    assert [name for name in FOUND if by_name[name].search() is None] == []
