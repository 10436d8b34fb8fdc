"""Write one file anew, a line for each word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    with open(Path(folder) / "words.txt", "w") as file:
        for word in run.each(WORDS):
            file.write(f"{slow(word)}\n")
    return len((Path(folder) / "words.txt").read_text().splitlines())
