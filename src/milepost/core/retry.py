"""How long to wait before the next attempt. Pure; the caller brings the randomness."""

from __future__ import annotations

BACKOFF_FIRST = 1.0
BACKOFF_MAX = 300.0


def backoff(attempt: int, random: float, first: float = BACKOFF_FIRST, longest: float = BACKOFF_MAX) -> float:
    """Seconds to wait after the given attempt (from 1): doubling, with full jitter.

    `random` is uniform in [0, 1). Full jitter spreads retries that came due together over the whole interval
    (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """
    return random * min(longest, first * 2.0 ** min(attempt - 1, 60))
