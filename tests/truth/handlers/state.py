"""Count in a state, and continue."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(words=0, letters=0)
    for word in run.each(WORDS, state=state):
        state.words += 1
        state.letters += len(slow(word))
    return {"words": state.words, "letters": state.letters}
