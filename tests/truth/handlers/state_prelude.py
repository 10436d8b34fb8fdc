"""Count a header before the loop in the same state."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(letters=0)
    state.letters += len("header")
    for word in run.each(WORDS, state=state):
        state.letters += len(slow(word))
    state.letters += len("footer")
    return state.letters
