"""Count in a state over what comes asynchronously."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from milepost import Run
from tests.truth.work import aslow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


async def handler(run: Run, folder: str) -> Any:
    async def words() -> AsyncIterator[str]:
        for word in WORDS:
            yield word

    state = run.state(letters=0, words=[])
    async for word in run.each(words(), state=state):
        state.letters += len(word)
        state.words.append(await aslow(word))
    return [state.letters, state.words]
