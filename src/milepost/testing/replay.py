"""Runs a handler as often as it can be interrupted, and compares what it does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from milepost.app import AsyncJobs
from milepost.core.errors import InputChangedError, JobNotFoundError, JobSuspended
from milepost.core.job import Job, JobStatus
from milepost.core.serialization import from_micros
from milepost.run.execution import Ended
from milepost.run.results import KeptResult
from milepost.run.run import Run
from milepost.run.steps import Steps
from milepost.testing.drain import DrainedExecution, drain
from milepost.testing.fakes import FrozenClock
from milepost.worker.handlers import Application

MAX_WAITS = 1000


class _UnsafeError(AssertionError):
    """A job does something else when it runs again."""


class _ReplayedExecution(DrainedExecution):
    """An execution that is suspended after each value that a step keeps, and after its end, and then starts again."""

    def __init__(
        self, app: Application, job: Job, results: dict[str, object], errors: dict[str, BaseException]
    ) -> None:
        super().__init__(app, job)
        self._results = results
        self._errors = errors

    async def run_to_end(self) -> tuple[Job, BaseException | None]:
        """As DrainedExecution, and note the error of a job that has failed."""
        ended, error = await super().run_to_end()
        if error is not None and ended.status is JobStatus.FAILED:
            self._errors[ended.job_id] = error
        return ended, error

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
            return _UnsafeError(f"{problem}; put what differs into run.step"), None
        return None, value


async def replay(app: AsyncJobs, clock: FrozenClock, job: Job, answers: Mapping[str, Any]) -> Any:
    """Run a submitted job to its end, with all that it makes. See `JobsUnderTest.replay`."""
    results: dict[str, object] = {}
    errors: dict[str, BaseException] = {}
    for _ in range(MAX_WAITS):
        await drain(app, "collect", 10 * MAX_WAITS, lambda app, job: _ReplayedExecution(app, job, results, errors))
        for job_id, error in errors.items():
            # The code of a parent may collect the errors of its children, but not those that only a test finds.
            if job_id == job.job_id or isinstance(error, _UnsafeError | InputChangedError):
                raise error
        found = await app.get_job(job.job_id)
        if found is None:
            raise JobNotFoundError(job.job_id)
        if found.is_terminal:
            if found.error is not None:
                raise AssertionError(f"{found.job_type} ended as {found.status}: {found.error}")
            return found.result
        pending = await app.list_jobs(status="pending", limit=1000)
        asking = [(one.job_id, one.record["asking"]) for one in pending if one.record.get("asking")]
        known = [(job_id, key) for job_id, key in asking if key in answers]
        for job_id, key in known:
            await app.answer(job_id, key, answers[key])
        if known:
            continue
        at = await _next_time(app, pending)
        if at is None:
            why = found.activity
            if asking:
                key = asking[0][1]
                why = f"the question {key!r:.80} has no answer; pass answers={{{key!r:.80}: ...}}"
            raise AssertionError(f"{found.job_type} does not end: {why}")
        clock.move_to(at)
    raise AssertionError(f"{job.job_type} does not end: it has waited {MAX_WAITS} times")


async def _next_time(app: AsyncJobs, pending: list[Job]) -> datetime | None:
    """Return when the first of the pending jobs is due, or None if no time makes one of them start."""
    times = [int(at) for job in pending for name in ("wake_at", "not_before") if (at := job.record.get(name))]
    now = await app.store.now()
    return from_micros(min(at for at in times if at > now) + 1) if any(at > now for at in times) else None
