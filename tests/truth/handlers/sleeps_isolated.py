"""Sleep in a process of its own, between two checkpoints."""

from __future__ import annotations

from typing import Any

from milepost import Jobs, Run
from tests.truth.work import slow

jobs = Jobs()


@jobs.job("sleeps-isolated", isolation="process")
def handler(run: Run, folder: str) -> Any:
    total = run.last_checkpoint or 0
    if not total:
        total = sum(slow(number) for number in range(7))
        run.checkpoint(total)
    run.sleep("pause", 0.05)
    return total + sum(run.step(f"n:{number}", slow, number) for number in range(7))
