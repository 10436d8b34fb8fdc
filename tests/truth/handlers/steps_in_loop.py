"""Ask a model for each item of a loop that starts over, and count in a state."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    answers = [run.step(f"ask:{word}", ask, word) for word in run.each(WORDS, stage="Ask")]
    state = run.state(letters=0)
    for answer in run.each(answers, stage="Count", state=state):
        state.letters += len(slow(answer))
    return {"answers": answers, "letters": state.letters}


def ask(word: str) -> str:
    return slow(word.upper())
