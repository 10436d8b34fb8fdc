"""Hold a dict of the state in a variable of its own."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(counts={}, order=[])
    counts, order = state.counts, state.order
    for word in run.each(WORDS, state=state):
        counts[word[0]] = counts.get(word[0], 0) + len(slow(word))
        order.append(word)
    return [counts, order, state.counts]
