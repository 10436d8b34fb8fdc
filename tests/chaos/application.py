"""The application of the soak. Its handlers append each thing that they do to a ledger outside the store.

A line of the ledger is JSON: what, when (seconds since 1970), job, fence, pid, and what belongs to it. One write a line, so
that lines of many processes do not mix and a killed process leaves whole ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from typing import Any

from milepost import Jobs, Run

jobs = Jobs()


def write(what: str, run: Run, **more: Any) -> None:
    """Append a line to the ledger."""
    known = {"what": what, "at": time.time(), "job": run.job_id, "fence": run.fence, "pid": os.getpid(), **more}
    line = json.dumps(known).encode() + b"\n"
    descriptor = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def begin(run: Run) -> int:
    """Write down the begin of a run and what it was given."""
    start = int(run.last_checkpoint or 0)
    write("began", run, given=start)
    return start


def step(run: Run, number: int, steps: int) -> None:
    """One step of work, recorded before and after the store has acknowledged it."""
    write("step", run, step=number)
    run.progress((number + 1) / steps, f"fence {run.fence} step {number}")


def end(run: Run) -> dict[str, Any]:
    """The result of a run, which names the run."""
    result = {"fence": run.fence, "value": random.getrandbits(32)}
    write("returned", run, result=result)
    return result


@jobs.job("threaded", max_attempts=4)
def threaded(run: Run, steps: int, pause: float, fails: float = 0.0) -> dict[str, Any]:
    """Work in a thread."""
    for number in range(begin(run), steps):
        step(run, number, steps)
        run.checkpoint(number + 1)
        write("checkpoint", run, step=number + 1)
        time.sleep(pause)
        if random.random() < fails:
            write("raised", run)
            raise ValueError("as it should now and then")
    return end(run)


@jobs.job("awaited", max_attempts=4)
async def awaited(run: Run, steps: int, pause: float, fails: float = 0.0) -> dict[str, Any]:
    """Work in the event loop."""
    for number in range(begin(run), steps):
        step(run, number, steps)
        await run.acheckpoint(number + 1)
        write("checkpoint", run, step=number + 1)
        await asyncio.sleep(pause)
        if random.random() < fails:
            write("raised", run)
            raise ValueError("as it should now and then")
    return end(run)


@jobs.job("isolated", isolation="process", max_attempts=4)
def isolated(run: Run, steps: int, pause: float, fails: float = 0.0) -> dict[str, Any]:
    """Work in a child process."""
    return threaded(run, steps, pause, fails)


@jobs.job("poison")
def poison(run: Run) -> None:
    """Take the process that runs it with it."""
    begin(run)
    os.kill(os.getpid(), signal.SIGKILL)
