"""Count in a loop with state inside of another one."""

from __future__ import annotations

from typing import Any

from milepost import Run

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


REFUSED_BECAUSE = "inside of a loop with state="


def handler(run: Run, folder: str) -> Any:
    outer, inner = run.state(words=0), run.state(letters=0)
    for word in run.each(WORDS, stage="Words", state=outer):
        for _ in run.each(word, state=inner):
            inner.letters += 1
        outer.words += 1
