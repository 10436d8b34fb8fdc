"""Sleep between the parts of a count, whose parts are steps."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow


def handler(run: Run, folder: str) -> Any:
    total = 0
    for part in range(3):
        total += sum(run.step(f"count:{part}:{number}", slow, number) for number in range(4))
        run.sleep(f"pause:{part}", 0.05)
    return total
