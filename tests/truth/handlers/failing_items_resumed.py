"""Write a file for each good item, continue, and have all bad ones counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    for word in run.each(WORDS, resume=True):
        with run.item(word):
            if slow(word).startswith("b"):
                raise ValueError(word)
            (Path(folder) / word).write_text(word)
    return sorted(path.name for path in Path(folder).iterdir())
