"""Change the state before and after the call that may fail."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(begun=0, ended=0)
    for word in run.each(WORDS, state=state):
        state.begun += 1
        slow(word)
        state.ended += 1
    return [state.begun, state.ended]
