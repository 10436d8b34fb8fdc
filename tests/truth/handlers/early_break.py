"""Look for a word, then go through what came before it."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    before = []
    for word in run.each(WORDS):
        if slow(word) == WORDS[9]:
            break
        before.append(word)
    return [len(slow(word)) for word in run.each(before)]
