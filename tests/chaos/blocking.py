"""An application whose handlers block the event loop or the whole interpreter."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shlex
import time
from pathlib import Path

from milepost import Jobs, Run
from tests.waiting import PATIENCE
from tests.worker.application import lines, note

jobs = Jobs()


@jobs.job("blocks")
async def blocks(run: Run, seconds: float, each: float) -> None:
    """Block the event loop for `each` seconds at a time, until the total is over."""
    note("blocks")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(each)  # noqa: ASYNC251 - that is what it is for
        await asyncio.sleep(0)


def grip(run: Run, command: str) -> None:
    """Hold the GIL in the first run of the job, until the command of the shell ends."""
    first = not any(line.startswith(f"grips {run.job_id}") for line in lines(Path(os.environ["WORKER_LOG"])))
    if first:
        time.sleep(0.2)  # what is written at its start is written
    note(f"grips {run.job_id} {os.getpid()}")
    if first:
        ctypes.PyDLL(None).system(command.encode())
        note(f"let go {run.job_id} {os.getpid()}")


@jobs.job("grips")
def grips(run: Run, until: str) -> str:
    """Hold the GIL of the worker until there is a file."""
    wait = f"until [ -e {shlex.quote(until)} ]; do sleep 0.05; done"
    grip(run, f"timeout {PATIENCE} sh -c {shlex.quote(wait)}")
    return f"attempt {run.attempt} in {os.getpid()}"


@jobs.job("grips-apart", isolation="process")
def grips_apart(run: Run, seconds: float) -> str:
    """Hold the GIL of a child process."""
    grip(run, f"sleep {seconds}")
    return f"attempt {run.attempt} in {os.getpid()}"
