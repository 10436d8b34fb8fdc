"""Collect lists and dicts in a state."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(by_letter={}, order=[])
    for word in run.each(WORDS, state=state):
        state.by_letter.setdefault(slow(word)[0], []).append(word)
        state.order.insert(0, word)
    return [state.by_letter, state.order]
