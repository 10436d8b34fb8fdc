"""Count in one state over two loops, and change it between them."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(first=0, second=0)
    for word in run.each(WORDS[:8], stage="First", state=state):
        state.first += len(slow(word))
    state.second = state.first * 1000
    for word in run.each(WORDS[:8], stage="Second", state=state):
        state.second += len(slow(word))
    return [state.first, state.second]
