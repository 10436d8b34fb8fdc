"""Drop duplicates by a dict of what was seen."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    seen: dict[str, int] = {}
    unique = []
    for number, word in enumerate(run.each([word[0] for word in WORDS])):
        if slow(word) not in seen:
            seen[word] = number
            unique.append(word)
    return [unique, seen]
