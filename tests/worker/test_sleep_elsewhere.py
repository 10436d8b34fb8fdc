"""Where a sleep does not suspend the job: in other threads, which is refused, in tracked blocks and in fake runs."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from milepost import AsyncRun, InMemoryJobManager, InvalidInputError, Jobs, Run
from milepost.testing import fake_async_run, fake_run
from tests.waiting import PATIENCE

pytestmark = pytest.mark.timing


def test_sleep_elsewhere_than_in_the_handler_is_refused(jobs: Jobs) -> None:
    def refusal(call: Any) -> str:
        try:
            call()
        except InvalidInputError as error:
            return str(error)
        return "not refused"

    @jobs.job
    def sync(run: Run) -> list[str]:
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(refusal(lambda: run.sleep("a", 9))))
        thread.start()
        thread.join()
        run.map(lambda _: found.append(refusal(lambda: run.sleep("b", 9))), [1])
        run.step("s", lambda: found.append(refusal(lambda: run.sleep("c", 9))))
        return found

    @jobs.job
    async def in_task(run: AsyncRun) -> str:
        try:
            await asyncio.gather(run.sleep("a", 9))
        except InvalidInputError as error:
            return str(error)
        return "not refused"

    with jobs.run_workers():
        found = jobs.wait(jobs.submit(sync).job_id, PATIENCE).result
        task = jobs.wait(jobs.submit(in_task).job_id, PATIENCE).result
    wheres = ["another task or thread", "given to run.map", "given to run.step", "another task or thread"]
    for where, text in zip(wheres, [*found, task], strict=True):
        assert text.startswith("run.sleep(): cannot suspend the job in ")
        assert where in text


def test_tracked_block_waits_in_place() -> None:
    manager = InMemoryJobManager()
    with manager.track("naps") as run:
        began = time.monotonic()
        run.sleep("nap", 0.05)
        assert time.monotonic() - began >= 0.05
    manager.close()


async def test_fake_runs_sleep_at_once() -> None:
    run, arun = fake_run(), fake_async_run()
    run.sleep("a", "6h")
    await arun.sleep("a", "6h")
    assert run.slept == arun.slept == [21600]
    run.sleep("short", 0.4)
    assert run.slept[1:] == [0.4]
    with pytest.raises(InvalidInputError, match="was used twice"):
        run.sleep("a", "6h")
    with pytest.raises(InvalidInputError, match="duration"):
        run.sleep("b", "soon")
