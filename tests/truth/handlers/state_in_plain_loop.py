"""Count in a state over the letters of each word, inside of a plain loop."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(codes=0)
    per_word = []
    for word in run.each(WORDS[:6], stage="Words"):
        for letter in run.each(word * 2, state=state):
            state.codes += ord(slow(letter))
        per_word.append(state.codes)
    return per_word
