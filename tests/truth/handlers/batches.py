"""Sum the lengths of words by batches."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    return [[len(batch), sum(len(slow(word)) for word in batch)] for batch in run.each(WORDS, batch=4)]
