"""Begin a loop at a checkpoint that holds what was counted."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    kept = run.last_checkpoint or {"next": 0, "letters": 0}
    for number in run.each(range(kept["next"], len(WORDS))):
        kept = {"next": number + 1, "letters": kept["letters"] + len(slow(WORDS[number]))}
        run.checkpoint(kept)
    return kept["letters"]
