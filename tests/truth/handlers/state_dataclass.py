"""Collect a set, a Counter, a Decimal and a time in a dataclass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


@dataclass
class Totals:
    """What is counted."""

    seen: set[str] = field(default_factory=set)
    letters: Counter[str] = field(default_factory=Counter)
    price: Decimal = Decimal("0.00")
    latest: datetime | None = None
    pairs: list[tuple[str, int]] = field(default_factory=list)
    by_length: dict[int, str] = field(default_factory=dict)


def handler(run: Run, folder: str) -> Any:
    totals = run.state(Totals)
    for number, word in enumerate(run.each(WORDS, state=totals)):
        totals.seen.add(slow(word)[0])
        totals.letters.update(word)
        totals.price += Decimal("0.10")
        totals.latest = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=len(totals.pairs))
        totals.pairs.append((word, len(word)))
        totals.by_length[len(totals.pairs)] = word
        assert number < len(WORDS)
    assert isinstance(totals.pairs[0], tuple)
    return [
        sorted(totals.seen),
        dict(totals.letters),
        str(totals.price),
        str(totals.latest),
        len(totals.pairs),
        totals.by_length[3],
    ]
