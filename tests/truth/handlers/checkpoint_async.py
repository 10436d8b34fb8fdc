"""Continue an async loop at a checkpoint."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import aslow


async def handler(run: Run, folder: str) -> Any:
    kept = run.last_checkpoint or {"at": 0, "sum": 0}
    for number in range(kept["at"], 14):
        kept = {"at": number + 1, "sum": kept["sum"] + await aslow(number)}
        await run.acheckpoint(kept)
    return kept["sum"]
