"""Write a file for each item of a map, which keeps no results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    def write(word: str) -> None:
        (Path(folder) / f"{word}.txt").write_text(slow(word).upper())

    run.map(write, WORDS, key=str, concurrency=2, keep=False)
    return sorted(path.read_text() for path in Path(folder).glob("*.txt"))
