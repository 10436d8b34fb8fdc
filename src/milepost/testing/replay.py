"""Runs a handler as often as it can be interrupted, and compares what it does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from milepost.app import AsyncJobs
from milepost.core.errors import JobNotFoundError, JobSuspended
from milepost.core.job import Job
from milepost.core.serialization import from_micros
from milepost.run.execution import Ended
from milepost.run.results import KeptResult
from milepost.run.run import Run
from milepost.run.steps import Steps
from milepost.testing.drain import DrainedExecution, drain
from milepost.testing.fakes import FrozenClock
from milepost.worker.handlers import Application

MAX_WAITS = 1000


class _ReplayedExecution(DrainedExecution):
    """An execution that is suspended after each value that a step keeps, and after its end, and then starts again."""

    def __init__(self, app: Application, job: Job, results: dict[str, object]) -> None:
        super().__init__(app, job)
        self._results = results

    async def _call(self, run: Run, params: Mapping[str, Any]) -> Ended:
        steps = Steps.of(run)
        keep = steps.keep

        def keep_and_suspend(entry: KeptResult) -> None:
            keep(entry)
            run._suspend(JobSuspended(run._checkpoint_writer.now(run)), "replay")

        steps.keep = keep_and_suspend  # type: ignore[method-assign]
        error, value = await super()._call(run, params)
        if error is not None:
            return error, value
        result = self.result(None, value)
        shown = result.text if result.json is None else result.json
        if run.job_id not in self._results:
            self._results[run.job_id] = shown
            return JobSuspended(await self._app.store.now()), None
        before = self._results[run.job_id]
        if before != shown:
            problem = (
                f"{run.job_type} returned {before!s:.300}, and {shown!s:.300} when it ran again with what it has kept"
            )
            return AssertionError(f"{problem}; put what differs into run.step"), None
        return None, value


async def replay(app: AsyncJobs, clock: FrozenClock, job: Job, answers: Mapping[str, Any]) -> Any:
    """Run a submitted job to its end, with all that it makes. See `JobsUnderTest.replay`."""
    results: dict[str, object] = {}
    for _ in range(MAX_WAITS):
        await drain(app, "raise", 10 * MAX_WAITS, lambda app, job: _ReplayedExecution(app, job, results))
        found = await app.get_job(job.job_id)
        if found is None:
            raise JobNotFoundError(job.job_id)
        if found.is_terminal:
            if found.error is not None:
                raise AssertionError(f"{found.job_type} ended as {found.status}: {found.error}")
            return found.result
        asking = found.record.get("asking")
        if asking is not None and asking in answers:
            await app.answer(found.job_id, asking, answers[asking])
            continue
        at = await _next_time(app)
        if at is None:
            why = (
                f"the question {asking!r:.80} has no answer; pass answers={{{asking!r:.80}: ...}}"
                if asking
                else found.activity
            )
            raise AssertionError(f"{found.job_type} does not end: {why}")
        clock.move_to(at)
    raise AssertionError(f"{job.job_type} does not end: it has waited {MAX_WAITS} times")


async def _next_time(app: AsyncJobs) -> datetime | None:
    """Return when the first of the pending jobs is due, or None if no time makes one of them start."""
    pending = await app.list_jobs(status="pending", limit=1000)
    times = [int(at) for job in pending for name in ("wake_at", "not_before") if (at := job.record.get(name))]
    now = await app.store.now()
    return from_micros(min(at for at in times if at > now) + 1) if any(at > now for at in times) else None
