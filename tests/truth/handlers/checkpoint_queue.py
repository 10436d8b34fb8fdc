"""Work off a queue that is the checkpoint."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow


def handler(run: Run, folder: str) -> Any:
    kept = run.last_checkpoint or {"todo": [1, 2], "seen": []}
    while kept["todo"]:
        number, *rest = kept["todo"]
        found = [number * 2, number * 2 + 1] if slow(number) < 8 else []
        kept = {"todo": rest + found, "seen": [*kept["seen"], number]}
        run.checkpoint(kept)
    return kept["seen"]
