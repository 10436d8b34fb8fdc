"""The jobs of an application in a test: in memory, without a worker, on a clock that the test moves."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from milepost.app import AsyncJobs, Jobs
from milepost.core.errors import InvalidInputError
from milepost.core.job import Job
from milepost.core.serialization import from_json, seconds
from milepost.manager.manager import AsyncJobManager
from milepost.manager.sync import JobManager
from milepost.run.param_types import plain
from milepost.stores.memory.state import system_micros
from milepost.stores.memory.store import MemoryStore
from milepost.stores.protocol import Select
from milepost.stores.sync_bridge import run_sync
from milepost.testing.drain import Errors, declare_schedules, drain
from milepost.testing.fakes import FrozenClock
from milepost.testing.replay import replay
from milepost.worker.handlers import ConfiguredHandler, Handler, Submittable

MAX_ATTEMPTS = 1000


class _Store(MemoryStore):
    """A store in memory for which no worker starts by itself."""

    shared = True

    def __init__(self, clock: FrozenClock) -> None:
        ticks = itertools.count()  # a microsecond for each reading, so that jobs have the order of their submission
        super().__init__(clock=lambda: clock() + next(ticks))
        clock.on_move.append(self._wake)  # a worker of the test looks for jobs that have become due

    def _wake(self) -> None:
        with self._memory.lock:
            self._memory.waiters.notify_all()


class _Inspection:
    """What both kinds of jobs under test have in common."""

    clock: FrozenClock
    """The clock of the store: it moves leases, delays, retries and retention, and only when the test says so."""
    _blocking: AsyncJobs

    def submitted(self, target: Submittable[..., Any] | str | None = None) -> list[Job]:
        """Return the jobs in the order of their submission, those of a handler or of a job type, or all."""
        types = () if target is None else (_type_of(target),)
        store = self._blocking.store
        newest_first = run_sync(store.select(Select(types), 1000))
        return [job for each in reversed(newest_first) if (job := run_sync(store.get(each.job_id))) is not None]

    def assert_submitted(
        self, target: Submittable[..., Any] | str, params: Mapping[str, Any] | None = None, /, **more: Any
    ) -> Job:
        """Return the newest job of a handler or job type that was submitted with these parameters, among others.

        ``assert_submitted(reindex, index="docs")``, ``assert_submitted("reindex", {"index": "docs"})`` and, with options,
        ``assert_submitted(reindex.options(priority=5), index="docs")``. Raises AssertionError, which lists what was
        submitted.
        """
        wanted = {name: plain(value) for name, value in {**(params or {}), **more}.items()}
        options = target.given if isinstance(target, ConfiguredHandler) else {}
        found = self.submitted(target)
        job: Job
        for job in reversed(found):
            if wanted.items() <= _params_of(job).items() and all(_has_option(job, *each) for each in options.items()):
                return job
        conditions = ", ".join(f"{name}={value!r}" for name, value in {**wanted, **options}.items())
        others = "; ".join(f"{job.job_type}({_shown(_params_of(job))})" for job in found or self.submitted())
        raise AssertionError(
            f"no job {_type_of(target)}({conditions}) was submitted; submitted: {others:.2000}" if others else
            f"no job {_type_of(target)}({conditions}) was submitted, and no other"
        )  # fmt: skip


class JobsUnderTest(_Inspection, Jobs):
    """The jobs of an application in a test: submits are recorded in memory, and `drain` runs them."""

    def drain(self, *, errors: Errors = "raise", limit: int = MAX_ATTEMPTS) -> list[Job]:
        """Run all claimable jobs here, in the order of a worker, until none is left; return the record after each attempt.

        Also runs jobs that these submit. A retry, a delayed job, the tick of a schedule or a job that sleeps runs once `clock`
        has reached its time. The error of a job that has failed for good is raised; with ``errors="collect"`` the failed job
        is returned with the others. Raises AssertionError if jobs are still claimable after `limit` attempts.
        """
        return run_sync(drain(self._async, errors, limit))

    def replay(
        self,
        target: Submittable[..., Any] | str,
        /,
        *args: Any,
        answers: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Any:
        """Submit a job, run it with all that it makes, and return its result: ``jobs.replay(import_all, folder="in")``.

        The code is ended and started again after each new step, at each `sleep`, `ask` and `join`, and once more at its end.
        So it shows what is not safe to interrupt: a key that is used twice, or a step, a child or a question that differs when the
        code runs again raises, and another result raises AssertionError. `answers` are those to questions, also of its children, by their keys; one
        without an answer expires. `clock` moves to the times that the jobs wait for. The error of the job is raised if it
        fails; its children fail as they do for a worker.
        """
        job = self.submit(target, *args, **params)
        return run_sync(replay(self._async, self.clock, job, answers or {}))


class AsyncJobsUnderTest(_Inspection, AsyncJobs):
    """The jobs of an application in an async test: submits are recorded in memory, and `drain` runs them."""

    async def drain(self, *, errors: Errors = "raise", limit: int = MAX_ATTEMPTS) -> list[Job]:
        """As `JobsUnderTest.drain`: async handlers run in this event loop, the others in a thread."""
        return await drain(self, errors, limit)

    async def replay(
        self,
        target: Submittable[..., Any] | str,
        /,
        *args: Any,
        answers: Mapping[str, Any] | None = None,
        **params: Any,
    ) -> Any:
        """As `JobsUnderTest.replay`."""
        job = await self.submit(target, *args, **params)
        return await replay(self, self.clock, job, answers or {})


@contextmanager
def jobs_under_test(app: Jobs | AsyncJobs | None = None, clock: FrozenClock | None = None) -> Iterator[JobsUnderTest]:
    """Redirect an application to memory: ``with jobs_under_test(app.jobs) as jobs``, then ``jobs.drain()``.

    Inside the block `app` submits into the same memory, in which no worker runs. `clock` starts at the current time. The
    declared schedules of `app` exist from the start of the block: `drain` makes and runs the jobs of ticks that `clock` has reached.
    """
    clock = clock if clock is not None else FrozenClock(system_micros())
    store = _Store(clock)
    jobs = JobsUnderTest(JobManager(store, **_options_of(app)))
    jobs.clock, jobs._blocking = clock, jobs._async
    try:
        with _redirected(app, store, [jobs._async]):
            yield jobs
    finally:
        jobs.close()


@contextmanager
def async_jobs_under_test(
    app: Jobs | AsyncJobs | None = None, clock: FrozenClock | None = None
) -> Iterator[AsyncJobsUnderTest]:
    """As `jobs_under_test`, for async tests: ``await jobs.drain()``."""
    clock = clock if clock is not None else FrozenClock(system_micros())
    store = _Store(clock)
    options = _options_of(app)
    jobs = AsyncJobsUnderTest(AsyncJobManager(store.with_blocking(blocking=False), **options))
    jobs.clock, jobs._blocking = clock, AsyncJobs(JobManager(store, **options)._async)
    with _redirected(app, store, [jobs]):
        yield jobs


@contextmanager
def _redirected(app: Jobs | AsyncJobs | None, store: MemoryStore, own: list[AsyncJobs]) -> Iterator[None]:
    """Let an application use a store, and the jobs of the test have its handlers, until the end of the block."""
    if app is None:
        yield
        return
    inner = app._async if isinstance(app, Jobs) else app
    before, manager, options = dict(vars(inner)), app.manager, _options_of(app)
    for jobs in own:
        jobs.handlers = inner.handlers
        jobs._use(jobs.manager)
    if isinstance(app, Jobs):
        app.manager = JobManager(store, **options)
        inner._use(app.manager._async)
    else:
        inner._use(AsyncJobManager(store.with_blocking(blocking=False), **options))
    try:
        run_sync(declare_schedules(inner, store))
        yield
    finally:
        vars(inner).clear()
        vars(inner).update(before)
        app.manager = manager


def _options_of(app: Jobs | AsyncJobs | None) -> dict[str, Any]:
    """Return the settings and the retention time that were given to an application."""
    return {} if app is None else {"ttl": app.manager.ttl, "options": app.manager.settings}


def _type_of(target: Submittable[..., Any] | str) -> str:
    handler = target.handler if isinstance(target, ConfiguredHandler) else target
    return handler.job_type if isinstance(handler, Handler) else str(handler)


def _params_of(job: Job) -> dict[str, Any]:
    params: dict[str, Any] = from_json(job.record.get("params", "{}"))
    return params


def _has_option(job: Job, name: str, wanted: Any) -> bool:
    if name == "delay":
        return job.not_before is not None and (job.not_before - job.created_at).total_seconds() == seconds(wanted, name)
    if name == "labels":
        return bool(wanted.items() <= job.labels.items())
    if not hasattr(job, name):
        raise InvalidInputError(name, "cannot be asserted; look at the job: assert_submitted(handler) returns it")
    found = getattr(job, name)
    return bool(found == (tuple(wanted) if isinstance(found, tuple) else wanted))


def _shown(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r:.80}" for name, value in params.items())
