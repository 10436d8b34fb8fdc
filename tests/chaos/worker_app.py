"""The application of worker processes in a soak. Its handlers write what they see to the ledger CHAOS_LEDGER.

A handler's message and result carry its fence, so that the store's own events tell which run an accepted write was of.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from milepost import Jobs, Run
from tests.chaos.ledger import Ledger

SLOTS = 2

jobs = Jobs()
_unwritten: set[int] = set()


@cache
def ledger() -> Ledger:
    """Return the ledger of this process."""
    return Ledger(os.environ["CHAOS_LEDGER"])


class _Unwritten(logging.Handler):
    """Notices, in the thread that it happens in, that a checkpoint was not acknowledged: the run continues without it."""

    def emit(self, record: logging.LogRecord) -> None:
        if "checkpoint could not be written" in record.msg:
            _unwritten.add(threading.get_ident())


_run_log = logging.getLogger("milepost.run")
_run_log.addHandler(_Unwritten())
_run_log.setLevel(logging.WARNING)  # whatever the rest of the process shows
_run_log.propagate = False


def begin(run: Run) -> int:
    """Note the start of a run, and return the step at which it begins."""
    given = run.last_checkpoint
    ledger().write("start", job=run.job_id, fence=run.fence, given=given, type=run.job_type)
    run.progress(0.0, f"{run.fence} 0")
    return int(given["n"]) if given else 0


def before(run: Run, step: int, count: int) -> dict[str, int]:
    """Note a step, and return the checkpoint to send after it."""
    ledger().write("step", job=run.job_id, fence=run.fence, n=step)
    run.progress(step / count, f"{run.fence} {step}")
    return {"n": step, "fence": run.fence}


def end(run: Run, count: int) -> dict[str, Any]:
    """Note the end of a run, and return its result."""
    result = {"fence": run.fence, "n": count, "job": run.job_id}
    run.progress(1.0, f"{run.fence} {count}")
    ledger().write("end", job=run.job_id, fence=run.fence, result=result)
    return result


def steps(run: Run, count: int, pause: float, known: bool = True) -> dict[str, Any]:
    """Count, with a checkpoint at each step. `known`: this process learns whether a checkpoint was acknowledged."""
    for step in range(begin(run) + 1, count + 1):
        time.sleep(pause)
        value = before(run, step, count)
        _unwritten.discard(threading.get_ident())
        run.checkpoint(value)
        if known and not run.cancelled and threading.get_ident() not in _unwritten:
            ledger().write("acked", job=run.job_id, fence=run.fence, n=step)
    return end(run, count)


@jobs.job("threaded", max_attempts=3)
def threaded(run: Run, count: int = 3, pause: float = 0.01) -> dict[str, Any]:
    """Work in a thread."""
    return steps(run, count, pause)


@jobs.job("limited", max_attempts=3, concurrency=SLOTS)
def limited(run: Run, count: int = 3, pause: float = 0.01) -> dict[str, Any]:
    """Work with a limit of concurrent runs over all workers."""
    return steps(run, count, pause)


@jobs.job("isolated", max_attempts=3, isolation="process")
def isolated(run: Run, count: int = 3, pause: float = 0.01) -> dict[str, Any]:
    """Work in a child process."""
    return steps(run, count, pause, known=False)


@jobs.job("awaiting", max_attempts=3)
async def awaiting(run: Run, count: int = 3, pause: float = 0.01) -> dict[str, Any]:
    """Work in the event loop."""
    for step in range(begin(run) + 1, count + 1):
        await asyncio.sleep(pause)
        value = before(run, step, count)
        await run.acheckpoint(value)
    return end(run, count)


@jobs.job("gated", max_attempts=3)
def gated(run: Run, folder: str, checkpoint: bool) -> dict[str, Any]:
    """Begin, and check for no stop until the gate of this process is opened; then write several times."""
    begin(run)
    gate = Path(folder) / f"gate-{os.getpid()}"
    while not gate.exists():
        time.sleep(0.01)
    if checkpoint:
        ledger().write("step", job=run.job_id, fence=run.fence, n=1)
        run.checkpoint({"n": 1, "fence": run.fence})
        ledger().write("acked", job=run.job_id, fence=run.fence, n=1)
    return end(run, 1)


@jobs.job("failing", max_attempts=2)
def failing(run: Run, count: int = 1, pause: float = 0.0) -> None:
    """Fail at every attempt."""
    begin(run)
    raise ValueError(f"as planned, fence {run.fence}")


@jobs.job("poison")
def poison(run: Run, how: str = "exit") -> None:
    """End the process that it runs in."""
    begin(run)
    if how == "exit":
        os._exit(3)
    ctypes.string_at(0)
