"""Handlers that fork, as the application of a worker process."""

from __future__ import annotations

import os
import signal
import sys

from milepost import AsyncRun, Jobs, Run
from tests.waiting import until

jobs = Jobs()


def fork(way: str) -> str:
    """Fork; return in the parent how the child, which returns or leaves by exit(3), has ended."""
    child = os.fork()
    if child == 0:
        if way == "exits":
            sys.exit(3)
        if way == "raises":
            raise ValueError("in the child")
        return "child"
    ended: list[int] = []

    def has_ended() -> bool:
        pid, status = os.waitpid(child, os.WNOHANG)
        ended.append(status)
        return pid == child

    try:
        until(has_ended, within=20)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    return f"child {os.waitstatus_to_exitcode(ended[-1])}"


@jobs.job("thread")
def in_thread(run: Run, way: str) -> str:
    """Fork in a thread of the worker."""
    return fork(way)


@jobs.job("task")
async def in_task(run: AsyncRun, way: str) -> str:
    """Fork in the event loop of the worker."""
    return fork(way)


@jobs.job("process", isolation="process")
def in_process(run: Run, way: str) -> str:
    """Fork in a process of its own."""
    return fork(way)


@jobs.job("task-in-process", isolation="process")
async def in_task_of_process(run: AsyncRun, way: str) -> str:
    """Fork in the event loop of a process of its own."""
    return fork(way)
