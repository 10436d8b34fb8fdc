"""The constants of BM25 and the weights of a query's words, the same in both stores."""

from __future__ import annotations

import math
from typing import Final

K1: Final = 1.2
"""How slowly a term counts more as it occurs more often. FTS5 has these two values built in."""
B: Final = 0.75
"""How much the length of a chunk matters."""
_MIN_WEIGHT: Final = 1e-6


def term_weight(holding: int, total: int) -> float:
    """Return the weight of a term that `holding` of `total` chunks have. What half of them have weighs nothing."""
    return max(_MIN_WEIGHT, math.log((total - holding + 0.5) / (holding + 0.5)))
