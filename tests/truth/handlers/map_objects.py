"""Use objects that a map gives, which are no JSON, and do all items in each attempt."""

from __future__ import annotations

from typing import Any

from milepost import Run
from tests.truth.work import slow


def handler(run: Run, folder: str) -> Any:
    roots = run.map(lambda number: complex(slow(number), 1), range(14), resume=False)
    return sum(int(root.real) for root in roots)
