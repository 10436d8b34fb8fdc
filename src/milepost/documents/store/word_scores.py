"""The weights of a query's words, as BM25 computes them."""

from __future__ import annotations

import math
from typing import Final

MAX_FREQUENCY_FACTOR: Final = 2.2
"""How much more a term counts that fills a chunk than its weight: k1 + 1 of BM25."""
_MIN_WEIGHT: Final = 1e-6


def term_weight(holding: int, total: int) -> float:
    """Return the weight of a term that `holding` of `total` chunks have. What half of them have weighs nothing."""
    return max(_MIN_WEIGHT, math.log((total - holding + 0.5) / (holding + 0.5)))
