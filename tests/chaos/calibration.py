"""Measure how slow this machine is now, to scale deadlines; safety checks do not depend on it."""

from __future__ import annotations

import functools
import subprocess
import sys
import time

EXPECTED = 0.25
"""Seconds that an interpreter with milepost's worker takes to start on an idle machine of the present."""
MOST = 6.0


def calibrate() -> float:
    """Return how much longer a worker process takes to start here than on an idle machine; at least 1."""
    program = "import milepost, milepost.worker.worker, milepost.stores.sqlite"
    spent = []
    for _ in range(2):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", program], check=True)
        spent.append(time.monotonic() - began)
    return min(MOST, max(1.0, min(spent) / EXPECTED))


def slowness() -> float:
    """Return the factor measured within the last minute, for the lease lengths of tests."""
    return _measured(int(time.monotonic() // 60))


@functools.lru_cache(maxsize=1)
def _measured(minute: int) -> float:
    return calibrate()
