"""Keep large answers in steps, in a process of its own."""

from __future__ import annotations

from typing import Any

from milepost import Jobs, Run
from tests.truth.work import slow

jobs = Jobs()


@jobs.job("steps-isolated", isolation="process")
def handler(run: Run, folder: str) -> Any:
    return [len(run.step(f"page:{number}", ask, number)) for number in range(14)]


def ask(number: int) -> str:
    return slow("x" * 5000 * (number + 1))
