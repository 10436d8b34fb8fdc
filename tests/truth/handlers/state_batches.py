"""Sum batches in a state."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(sizes=[])
    for batch in run.each(WORDS, batch=3, state=state):
        state.sizes.append(sum(len(slow(word)) for word in batch))
    return state.sizes
