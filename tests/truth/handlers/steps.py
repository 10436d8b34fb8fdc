"""Ask a model in several steps, each with the answer of the step before."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow


def handler(run: Run, folder: str) -> Any:
    answer = "a"
    for number in range(14):
        answer = run.step(f"ask:{number}", ask, answer, number)
    return answer


def ask(answer: str, number: int) -> str:
    return slow(f"{answer}{number}"[-40:])
