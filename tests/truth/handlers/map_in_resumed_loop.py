"""Map the letters of each word, write a file for the word, and continue after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    for word in run.each(WORDS[:6], stage="Words", resume=True):
        codes = run.map(lambda letter: ord(slow(letter)), word)
        (Path(folder) / word).write_text(str(codes))
    return sorted(path.read_text() for path in Path(folder).iterdir())
