"""milepost with the jobs of the survey `user_waits`, whose code reports its moments."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.job_ticks import mark
from benchmarks.peers import milepost

connect = milepost.Connected
CHECK_SECONDS = 0.01
RUNS, BEGINS, CONTINUES = 1, 2, 3
"""What a job reports: that it runs or is cancelled, its second attempt, the first new item of that attempt."""


def application(url: str) -> Any:
    """Return the application of the workers."""
    from milepost import AsyncRun, JobCancelled, Run

    jobs, noop = milepost.application(url)

    @jobs.job("waiting")
    async def waiting(run: AsyncRun) -> None:
        await asyncio.sleep(3600)

    @jobs.job("coroutine")
    async def coroutine(run: AsyncRun) -> None:
        mark(RUNS)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            mark(RUNS)
            raise

    @jobs.job("thread")
    def thread(run: Run) -> None:
        mark(RUNS)
        try:
            while True:
                run.check()
                time.sleep(CHECK_SECONDS)
        except JobCancelled:
            mark(RUNS)
            raise

    @jobs.job("parent")
    def parent(run: Run, children: int) -> None:
        for number in range(children):
            run.submit_child(str(number), noop)
        run.join()

    @jobs.job("interrupted", max_attempts=2, backoff=lambda attempt: 0)
    def interrupted(run: Run, items: int, how: str) -> None:
        if run.attempt > 1:
            mark(BEGINS)

        def work(item: int) -> int:
            if item == items - 1:
                if run.attempt == 1:
                    raise ConnectionError("the last item is for the second attempt")
                mark(CONTINUES)
            return item

        if how == "map":
            run.map(work, range(items))
        elif how == "state":
            state = run.state(total=0)
            for item in run.each(range(items), state=state):
                state.total += work(item)
        else:
            for item in run.each(range(items), resume=True):
                work(item)

    return jobs


def work(url: str) -> None:
    """Run one worker, with 100 jobs at a time."""
    application(url).worker(concurrency=100).run()
