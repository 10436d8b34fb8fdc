"""Count in a state over a generator with keys."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(letters=0)
    for word in run.each((word for word in WORDS), key=str, state=state):
        state.letters += len(slow(word))
    return state.letters
