"""Write a file for each word, and continue after those that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    for word in run.each(WORDS, key=str, resume=True):
        (Path(folder) / f"{word}.txt").write_text(slow(word).upper())
    return sorted(path.read_text() for path in Path(folder).glob("*.txt"))
