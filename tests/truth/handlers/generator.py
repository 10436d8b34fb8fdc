"""Number the words that a generator yields, in a stage of known size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    def words() -> Iterator[str]:
        yield from WORDS

    found = []
    with run.stage("Reading", total=len(WORDS)):
        for number, word in enumerate(run.each(words())):
            found.append(f"{number} {slow(word)}")
    return found
