"""Count in a state over a list, in an async handler."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import aslow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


async def handler(run: Run, folder: str) -> Any:
    state = run.state(letters=0)
    async for word in run.each(WORDS, state=state):
        state.letters += len(await aslow(word))
    return state.letters
