"""Handlers that spend in child processes, and in worker processes that a test kills."""

from __future__ import annotations

import os
import time
from pathlib import Path

from milepost import Jobs, Run
from tests.waiting import until
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
    """Do the same, wait for a file of the test before the fourth time, and take a moment to return after a suspension."""
    try:
        answers = [run.step(name, pay, run, name) for name in "abc"]
        until((Path(os.environ["WORKER_LOG"]).parent / "go").exists)
        return [*answers, run.step("d", pay, run, "d")]
    except BaseException:
        note("unwinds")
        time.sleep(0.3)
        raise
