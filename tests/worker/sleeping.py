"""Handlers that sleep or snooze in a child process."""

from __future__ import annotations

import time

from milepost import AsyncRun, Jobs, JobTimedOut, Run, Snooze

NAP = 1.0
"""Seconds to sleep. A run is suspended before they are over also where processes wait for a processor."""
jobs = Jobs("memory://")


@jobs.job("sleeps.child", isolation="process")
def sleeps(run: Run) -> str:
    run.sleep("nap", NAP)
    return "slept"


@jobs.job("asleep.child", isolation="process")
async def asleep(run: AsyncRun) -> str:
    await run.sleep("nap", NAP)
    return "slept"


@jobs.job("snoozes.child", isolation="process")
def snoozes(run: Run) -> None:
    raise Snooze(0)


def _slow_to_end(run: Run) -> str:
    try:
        run.sleep("nap", NAP)
    finally:
        end = time.monotonic() + 10
        while not any(isinstance(reason, JobTimedOut) for reason in run._stop_reasons) and time.monotonic() < end:
            time.sleep(0.01)
    return "slept"


@jobs.job("slow.thread", isolation="thread", timeout=0.4, max_attempts=2, no_retry_on=JobTimedOut)
def slow_in_thread(run: Run) -> str:
    """End only when the time limit has come."""
    return _slow_to_end(run)


@jobs.job("slow.child", isolation="process", timeout=0.4, max_attempts=2, no_retry_on=JobTimedOut)
def slow_in_child(run: Run) -> str:
    """Do the same in a child process."""
    return _slow_to_end(run)
