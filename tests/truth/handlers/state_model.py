"""Count in a pydantic model."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


class Totals(BaseModel):
    """What is counted."""

    words: int = 0
    price: Decimal = Decimal(0)
    seen: set[str] = set()


def handler(run: Run, folder: str) -> Any:
    totals = run.state(Totals)
    for word in run.each(WORDS, state=totals):
        totals.words += 1
        totals.price += Decimal("0.05")
        totals.seen.add(slow(word)[-1])
    return [totals.words, str(totals.price), sorted(totals.seen)]
