"""The delay before the next attempt."""

from __future__ import annotations

BACKOFF_FIRST = 1.0
BACKOFF_MAX = 300.0


def backoff(
    attempt: int, random: float, first: float = BACKOFF_FIRST, longest: float = BACKOFF_MAX, factor: float = 2.0
) -> float:
    """Return the seconds to wait after the given attempt (counted from 1): exponential, with full jitter.

    `random` is uniform in [0, 1). Full jitter spreads retries that came due together over the whole interval
    (Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """
    return random * min(longest, first * factor ** min(attempt - 1, 60))
