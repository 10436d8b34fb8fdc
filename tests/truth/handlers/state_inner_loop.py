"""Go through the letters of each word in a plain loop inside of one with state."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(sums={})
    for word in run.each(WORDS[:7], stage="Words", state=state):
        for letter in run.each(word):
            state.sums[letter] = state.sums.get(letter, 0) + 1
            slow(letter)
    return state.sums
