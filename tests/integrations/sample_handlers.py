"""The handlers that every task queue of the conformance suite runs; they write what they do into the log of the test."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

from milepost import AsyncRun, Jobs, Run

_never = threading.Event()


def note(text: str) -> None:
    """Append a line to the log of the test, in one write."""
    with open(os.environ["TEST_LOG"], "a") as log:
        log.write(text + "\n")


def lines(path: Path) -> list[str]:
    """Return the written lines."""
    return path.read_text().splitlines()


def register(jobs: Jobs) -> None:
    """Add the handlers to an application, and log each requeued message."""
    assert jobs.dispatcher is not None, "an application with a task queue"
    task_queue = jobs.dispatcher.task_queue
    requeue = task_queue.requeue

    def noted_put_back(job_id: str, job_type: str, delay: float) -> None:
        requeue(job_id, job_type, delay)
        note(f"put back {job_id}")

    task_queue.requeue = noted_put_back  # type: ignore[method-assign]

    @jobs.job("noted")
    def noted(run: Run, text: str = "") -> dict[str, Any]:
        """Write a line."""
        note(f"noted {text}")
        return {"text": text}

    @jobs.job("steps", max_attempts=2)
    def steps(run: Run, count: int, pause: float = 0.05) -> int:
        """Count in a tracked loop, with a checkpoint at each step."""
        note(f"began at {run.last_checkpoint or 0} in {os.getpid()}")
        with run.stage("Counting", total=count, unit="step") as stage:
            for step in range(run.last_checkpoint or 0, count):
                note(f"step {step}")
                run.checkpoint(step + 1)
                stage.advance()
                run.log(f"at {step}")
                time.sleep(pause)
        return count

    @jobs.job("waits")
    async def waits(run: Run, gate: str) -> str:
        """Wait until a file is there; in an event loop."""
        note("waits")
        while not await asyncio.to_thread(os.path.exists, gate):
            await asyncio.sleep(0.02)
        return "opened"

    @jobs.job("gated")
    def gated(run: Run, gate: str) -> str:
        """Wait until a file is there, with a cancel point."""
        note(f"gated {os.getpid()}")
        while not os.path.exists(gate):
            run.progress(0.5, "waiting")
            time.sleep(0.02)
        return "opened"

    @jobs.job("deaf")
    def deaf(run: Run) -> None:
        """Run without a cancellation point; touch a file while running."""
        note(f"deaf {os.getpid()}")
        while True:
            Path(os.environ["TEST_LOG"] + ".alive").touch()
            _never.wait(0.02)

    @jobs.job("suspends")
    def suspends(run: Run) -> dict[str, Any]:
        """Sleep, then wait for an answer."""
        note("suspends")
        run.sleep("nap", 0.2)
        return {"answer": run.ask("ok", "Continue?", bool), "attempt": run.attempt}

    @jobs.job("suspends_async")
    async def suspends_async(run: AsyncRun) -> dict[str, Any]:
        """The same in an event loop."""
        note("suspends")
        await run.sleep("nap", 0.2)
        return {"answer": await run.ask("ok", "Continue?", bool), "attempt": run.attempt}

    @jobs.job("part", max_attempts=2)
    def part(run: Run, number: int) -> int:
        """Return a number."""
        note(f"part {number}")
        time.sleep(0.2)
        return number

    @jobs.job("parent")
    def parent(run: Run, count: int) -> dict[str, Any]:
        """Add up the results of children."""
        note("parent")
        for number in range(count):
            run.submit_child(str(number), part, number=number)
        children = run.join()
        return {"sum": sum(children.result(str(number)) for number in range(count)), "attempt": run.attempt}

    @jobs.job("parent_async")
    async def parent_async(run: AsyncRun, count: int) -> dict[str, Any]:
        """The same in an event loop."""
        note("parent")
        for number in range(count):
            run.submit_child(str(number), part, number=number)
        children = await run.join()
        return {"sum": sum([await children.result(str(number)) for number in range(count)]), "attempt": run.attempt}

    @jobs.job("fails")
    def fails(run: Run) -> None:
        """Fail permanently."""
        note("fails")
        raise ValueError("this cannot be done")

    @jobs.job("third_time", max_attempts=5)
    def third_time(run: Run) -> int:
        """Fail twice."""
        note(f"attempt {run.attempt}")
        if run.attempt < 3:
            raise ConnectionError("not yet")
        return run.attempt
