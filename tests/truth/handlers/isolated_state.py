"""Count in a state, in a process of its own."""

from __future__ import annotations

from typing import Any

from milepost import Jobs, Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


jobs = Jobs()


@jobs.job("isolated_state", isolation="process")
def handler(run: Run, folder: str) -> Any:
    state = run.state(letters=0, words=0)
    for word in run.each(WORDS * 5, state=state):
        state.words += 1
        state.letters += len(slow(word))
    return [state.words, state.letters]
