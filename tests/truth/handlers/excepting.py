"""Look at the result of each item, and continue after its exception."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    results: list[int | str] = []
    for number, word in enumerate(run.each(WORDS)):
        try:
            results.append(slow(1) // (number % 3))
        except ZeroDivisionError:
            results.append(word)
        finally:
            run.progress(message=word)
    return results
