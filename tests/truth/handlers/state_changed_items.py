"""Change each item while it is counted."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    pages = [{"word": word, "done": False} for word in WORDS]
    state = run.state(letters=0)
    for page in run.each(pages, state=state):
        page["done"] = True
        state.letters += len(slow(str(page["word"])))
    return state.letters
