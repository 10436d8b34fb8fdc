"""Go through all files in each attempt, and continue in the rows of the file at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    for word in run.each(WORDS[:4]):
        (Path(folder) / word).mkdir(exist_ok=True)
        for number in run.each(range(4), resume=True):
            (Path(folder) / word / str(number)).write_text(slow(word))
    return len(list(Path(folder).glob("*/*")))
