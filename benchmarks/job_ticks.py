"""The no-op job of a queue peer: it counts, and reports the count and the time to the harness now and then.

The environment names a FIFO (BENCH_TICKS) and how often to write to it (BENCH_EVERY); the clock is CLOCK_MONOTONIC, which
all processes of a machine share.
"""

from __future__ import annotations

import itertools
import os
import time

EVERY = int(os.environ.get("BENCH_EVERY", "1"))

_count = itertools.count(1)
_fifo: list[int] = []


def tick() -> int:
    """Count one job, from any thread. Return 1 as the result of the job."""
    n = next(_count)
    if n == 1 or n % EVERY == 0:
        mark(n)
    return 1


def mark(n: int) -> None:
    """Report a number and the time to the harness."""
    now = time.monotonic_ns()
    if not _fifo:
        _fifo.append(os.open(os.environ["BENCH_TICKS"], os.O_RDWR))
    os.write(_fifo[0], b"%d %d\n" % (n, now))
