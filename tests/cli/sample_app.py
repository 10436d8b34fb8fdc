"""Sample jobs for tests of the command line: ``--app tests.cli.sample_app:jobs``."""

from __future__ import annotations

import os
import sys
import time
from typing import Literal

from milepost.app import Jobs
from milepost.run.run import Run

jobs = Jobs()


@jobs.job("count")
def count(run: Run, n: int, pause: float = 0.01, note: str = "") -> dict[str, int]:
    """Count to n, slowly; the result says where this attempt began."""
    seen: list[int] = []
    with run.stage("Counting", total=n, unit="number"):
        for number in run.each(range(n), key=str, resume=True):
            seen.append(number)
            run.output(f"{number}\n")
            time.sleep(float(os.environ.get("COUNT_PAUSE", pause)))
    return {"first": seen[0] if seen else n, "last": n - 1, "counted": len(seen)}


@jobs.job("deaf")
def deaf(run: Run, seconds: float) -> None:
    """Sleep without a cancellation point."""
    run.progress(0.5, "sleeping")
    time.sleep(seconds)


@jobs.job("broken")
def broken(run: Run, words: list[str], kind: Literal["value", "key"] = "value") -> None:
    """Log a line and fail."""
    run.log("about to fail")
    run.progress(0.25, "failing")
    raise ValueError(" ".join(words)) if kind == "value" else KeyError(words[0])


@jobs.job("gentle")
async def gentle(run: Run, n: int) -> int:
    """Count in an event loop."""
    import asyncio

    async for _ in run.each(range(n)):
        await asyncio.sleep(0.01)
    return n


@jobs.job("leave")
def leave(run: Run, code: int) -> None:
    """Leave the process."""
    sys.exit(code)
