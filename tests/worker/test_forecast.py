"""Forecasts of jobs from earlier runs, in a task, a thread and a child process."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime

import pytest

from milepost import Run
from milepost.run.forecast.history import read_profiles
from milepost.stores.sync_bridge import run_sync
from milepost.worker.handlers import Handlers
from tests.waiting import current, until
from tests.worker.conftest import MakeJobs

pytestmark = pytest.mark.timing

STEPS = 100
handlers = Handlers()


@handlers.job("in_loop")
async def in_loop(run: Run, seconds: float) -> None:
    """Read, then work for some time, in a task."""
    with run.stage("Read"):
        await asyncio.sleep(0.01)
    async for _ in run.each(range(STEPS), stage="Work"):
        await asyncio.sleep(seconds / STEPS)


@handlers.job("in_thread")
def in_thread(run: Run, seconds: float) -> None:
    """Read, then work for some time, in a thread."""
    with run.stage("Read"):
        time.sleep(0.01)
    for _ in run.each(range(STEPS), stage="Work"):
        time.sleep(seconds / STEPS)


@handlers.job("in_process", isolation="process")
def in_process(run: Run, seconds: float) -> None:
    """Read, then work for some time, in a child process."""
    in_thread.function(run, seconds)


@pytest.mark.parametrize("name", ["in_loop", "in_thread", "in_process"])
def test_worker_jobs_forecast_and_record_history(make_jobs: MakeJobs, name: str) -> None:
    jobs = make_jobs(grace=2.0)
    jobs.handlers.add(handlers[name])

    with jobs.run_workers():
        first = jobs.submit(name, {"seconds": 0.5})
        until(lambda: current(jobs, first).is_terminal)
        until(lambda: run_sync(read_profiles(jobs.store, name)))
        profile = run_sync(read_profiles(jobs.store, name))[0]
        assert [part.name for part in profile.parts] == ["Read", "Work"]
        assert profile.parts[1].total == STEPS
        second = jobs.submit(name, {"seconds": 60.0})
        # Its stages have no weights: only who knows the first can say when it ends.
        eta = until(lambda: current(jobs, second).eta)
        assert datetime.fromisoformat(eta.earliest) <= datetime.fromisoformat(eta.latest)
        jobs.cancel_job(second.job_id)
        until(lambda: (receipt := current(jobs, second).receipt) is not None and receipt.confirmed is not None)
    assert current(jobs, second).eta is None
    assert len(run_sync(read_profiles(jobs.store, name))) == 1, "a cancelled run teaches nothing"
