"""Count in a TypedDict."""

from __future__ import annotations

from typing import Any, TypedDict

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


class Totals(TypedDict):
    """What is counted."""

    words: int
    seen: set[str]


def handler(run: Run, folder: str) -> Any:
    totals = run.state(Totals, words=0, seen=set())
    for word in run.each(WORDS, state=totals):
        totals["words"] += 1
        totals["seen"].add(slow(word)[-1])
    return [totals["words"], sorted(totals["seen"])]
