"""A worker uses its event loop only in the thread of the loop: that of uvloop is damaged by use in other threads."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from milepost import Jobs, Run
from tests.waiting import PATIENCE
from tests.worker.job_assertions import Signals, ended

pytestmark = pytest.mark.timing


class StrictLoop(asyncio.SelectorEventLoop):
    """An event loop that refuses callbacks from other threads, and notes which timers they cancel."""

    foreign: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self.set_debug(True)  # from here on it refuses
        self.thread = threading.get_ident()

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        super()._timer_handle_cancelled(handle)  # type: ignore[misc]
        if threading.get_ident() != self.thread:
            self.foreign.append(handle)


@pytest.fixture(autouse=True)
def foreign(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.TimerHandle]:
    """Let workers have strict event loops; return the timers that other threads cancel."""
    found: list[asyncio.TimerHandle] = []
    monkeypatch.setattr(StrictLoop, "foreign", found, raising=False)
    monkeypatch.setattr(asyncio, "new_event_loop", StrictLoop)
    return found


def test_timers_of_handlers_in_threads_are_cancelled_by_loop(
    jobs: Jobs, signals: Signals, foreign: list[asyncio.TimerHandle]
) -> None:
    """Regression: the thread of the handler cancelled the timer of its timeout and that of its grace period."""

    @jobs.job("quick", timeout=3600)
    def quick(run: Run) -> str:
        return "done"

    @jobs.job("late", timeout=0.2)
    def late(run: Run) -> None:
        while True:
            run.check()
            time.sleep(0.01)

    @jobs.job("released", timeout=3600)
    def released(run: Run) -> None:
        signals.began.set()
        while True:
            run.check()
            time.sleep(0.01)

    with jobs.run_workers():
        assert ended(jobs, jobs.submit(quick)).result == "done"
        assert ended(jobs, jobs.submit(late)).error == "timeout of 0.2 s exceeded"
        job_id = jobs.submit(released).job_id
        assert signals.began.wait(PATIENCE)
    job = jobs.get_job(job_id)
    assert job is not None
    assert job.status == "pending"
    assert foreign == []
