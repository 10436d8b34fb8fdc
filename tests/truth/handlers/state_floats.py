"""Keep NaN and infinities in a state."""

from __future__ import annotations

import math
from typing import Any

from milepost import Run
from tests.truth.work import slow


def handler(run: Run, folder: str) -> Any:
    state = run.state(low=math.inf, last=math.nan, sum=0.0)
    for number in run.each(range(14), state=state):
        state.low = min(state.low, slow(number) / 7)
        state.sum += 0.1
        assert math.isnan(state.last)
    return [state.low, state.sum]
