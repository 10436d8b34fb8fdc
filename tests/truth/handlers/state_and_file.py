"""Count in a state, and write one file whose length it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from milepost import Run
from tests.truth.work import slow

WORDS = [f"{'abcde'[number % 5]}{number}" for number in range(14)]


def handler(run: Run, folder: str) -> Any:
    state = run.state(bytes=0)
    with open(Path(folder) / "words.txt", "ab") as file:
        for word in run.each(WORDS, state=state):
            file.truncate(state.bytes)
            file.write(slow(word).encode())
            file.flush()
            state.bytes += len(word)
    return state.bytes
