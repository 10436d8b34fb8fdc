"""Handlers that sleep in a child process."""

from __future__ import annotations

from milepost import AsyncRun, Jobs, Run

jobs = Jobs("memory://")


@jobs.job("sleeps.child", isolation="process")
def sleeps(run: Run) -> str:
    run.sleep("nap", 0.2)
    return "slept"


@jobs.job("asleep.child", isolation="process")
async def asleep(run: AsyncRun) -> str:
    await run.sleep("nap", 0.2)
    return "slept"
