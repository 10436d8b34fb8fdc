"""Handlers that spend in child processes, and in worker processes that a test kills."""

from __future__ import annotations

import os
import time

from milepost import Jobs, Run
from tests.worker.application import note

jobs = Jobs()


def pay(run: Run, name: str) -> str:
    """Spend 0.4 USD for an answer."""
    run.add_usage(usd=0.4)
    if "WORKER_LOG" in os.environ:
        note(f"paid {name}")
    return name


@jobs.job("spends.child", isolation="process")
def spends(run: Run) -> list[str]:
    """Ask a model four times."""
    return [run.step(name, pay, run, name) for name in "abcd"]


@jobs.job("spends.slowly", isolation="thread")
def spends_slowly(run: Run) -> list[str]:
    """Do the same, and take a moment before the fourth time, and to return after a suspension."""
    try:
        answers = [run.step(name, pay, run, name) for name in "abc"]
        time.sleep(0.3)
        return [*answers, run.step("d", pay, run, "d")]
    except BaseException:
        note("unwinds")
        time.sleep(0.3)
        raise
