"""A forgotten `await` of a call of the run is reported in the log of the job."""

from __future__ import annotations

import pytest

from milepost import Job, Jobs, Run

pytestmark = [pytest.mark.timing, pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")]
WARNING = "run.{0}() was called without await and had no effect; write await run.{0}(...)"


def log(jobs: Jobs, job: Job) -> list[tuple[str, str]]:
    """Return the log of a job: level and text of each line."""
    events = [event for event in jobs.events(job.job_id) if event.kind == "log"]
    return [(line["level"], line["text"]) for event in events for line in event.data["lines"]]


async def embed(number: int) -> int:
    return number


def test_forgotten_await_is_logged(jobs: Jobs) -> None:
    @jobs.job
    async def asynchronous(run: Run) -> None:
        run.acheckpoint(1)  # type: ignore[unused-coroutine]
        run.map(embed, range(3))  # type: ignore[unused-coroutine]

    @jobs.job
    def blocking(run: Run) -> None:
        run.acheckpoint(1)  # type: ignore[unused-coroutine]

    with jobs.run_workers():
        first = jobs.wait(jobs.submit(asynchronous).job_id, 20)
        second = jobs.wait(jobs.submit(blocking).job_id, 20)
    assert log(jobs, first) == [("warning", WARNING.format("acheckpoint")), ("warning", WARNING.format("map"))]
    assert log(jobs, second) == [("warning", WARNING.format("acheckpoint"))]


def test_awaited_calls_log_nothing(jobs: Jobs) -> None:
    @jobs.job
    async def asynchronous(run: Run) -> list[int]:
        for number in range(3):
            await run.acheckpoint(number)
        return [len(run.recent_log)]

    @jobs.job
    async def mapping(run: Run) -> list[int]:
        return await run.map(embed, range(3))

    with jobs.run_workers():
        first = jobs.wait(jobs.submit(asynchronous).job_id, 20)
        second = jobs.wait(jobs.submit(mapping).job_id, 20)
    assert (first.result, second.result) == ([0], [0, 1, 2])
    assert (log(jobs, first), log(jobs, second)) == ([], [])
