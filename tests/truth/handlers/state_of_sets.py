"""Collect in a set of a state that does not declare it."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


REFUSED_BECAUSE = "set would not come back equal"


def handler(run: Run, folder: str) -> Any:
    state = run.state(seen=set())
    for word in run.each(WORDS, state=state):
        state.seen.add(slow(word))
    return len(state.seen)
