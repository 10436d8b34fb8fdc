"""Collect more in a state than is kept."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(texts=[])
    for word in run.each(WORDS, state=state):
        state.texts.append(slow(word) * 20_000)
    return [len(text) for text in state.texts]
