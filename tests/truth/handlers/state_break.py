"""Leave a loop with state early, and continue with its state in another loop."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(letters=0)
    for word in run.each(WORDS, stage="Search", state=state):
        state.letters += len(slow(word))
        if word == WORDS[6]:
            break
    for word in run.each(WORDS[7:], stage="Rest", state=state):
        state.letters += 100 * len(slow(word))
    return state.letters
