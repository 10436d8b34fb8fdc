"""Jobs: the blocking API of AsyncJobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from milepost.app.jobs import AsyncJobs, Target
from milepost.core.job import Job
from milepost.manager.sync import JobManager
from milepost.run.run import Run
from milepost.settings import Settings
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import run_sync
from milepost.worker.dispatcher import Dispatcher, TaskQueue
from milepost.worker.handlers import ConfiguredHandler, Handler, HandlerOptions, Handlers, SubmitOptions
from milepost.worker.registry import JobType, WorkerEntry
from milepost.worker.runner import WorkerGroup
from milepost.worker.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")


class _SyncCore(AsyncJobs):
    """AsyncJobs over a blocking store: its coroutines never suspend."""

    _blocking = True


class Jobs(JobManager):
    """The jobs of an application in blocking code: a JobManager with handlers, `submit` and workers.

    `url` is the store (default: MILEPOST_URL, else REDIS_URL, else in memory). In memory, a worker thread starts at the
    first submit. With `task_queue`, a task queue of `milepost.integrations`, the workers of that task queue run the
    submitted jobs.
    """

    _async: _SyncCore

    def __init__(
        self,
        url: Store | str | None = None,
        *,
        ttl: float | None = None,
        options: Settings | None = None,
        task_queue: TaskQueue | Dispatcher | None = None,
    ) -> None:
        self._async = _SyncCore(url, ttl=ttl, options=options, task_queue=task_queue)

    @property
    def dispatcher(self) -> Dispatcher | None:
        """Return the dispatcher to the task queue, or None."""
        return self._async.dispatcher

    @property
    def handlers(self) -> Handlers:
        """Return the handlers by job type."""
        return self._async.handlers

    @overload
    def job(self, function: Callable[Concatenate[Run, P], R], /) -> Handler[P, R]: ...

    @overload
    def job(
        self, job_type: str | None = None, **options: Unpack[HandlerOptions]
    ) -> Callable[[Callable[Concatenate[Run, P], R]], Handler[P, R]]: ...

    def job(self, job_type: Any = None, **options: Unpack[HandlerOptions]) -> Any:
        """Register a function as the handler of a job type: ``@jobs.job("reindex", max_attempts=3, timeout="2h")``.

        The default type is the name of the function: ``@jobs.job``. Its first parameter is the Run; the others are
        typed, and validated before a job is accepted. The options are those of `HandlerOptions`. Raises InvalidInputError.
        """
        return self._async.job(job_type, **options)

    @overload
    def submit(
        self, target: Handler[P, Any] | ConfiguredHandler[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job: ...

    @overload
    def submit(
        self, target: str, params: Mapping[str, Any] | None = None, /, **options: Unpack[SubmitOptions]
    ) -> Job: ...

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        """Create a job for the workers and return it.

        Use ``submit(reindex, index="docs")``, ``submit(reindex.options(priority=5), ...)``, or, from code without the
        handler, ``submit("reindex", {"index": "docs"}, priority=5)``.

        If a pending or running job has the same `unique_key`, `on_duplicate` decides: ``"return"`` returns that job,
        ``"refuse"`` raises DuplicateJobError, ``"supersede"`` cancels it and creates this one in one atomic step; the
        new job waits until the code of the old one has stopped. Raises InvalidInputError with the name of the
        parameter, UnknownJobTypeError and DuplicateJobError.
        """
        return run_sync(self._async.submit(target, *args, **kwargs))

    def submit_many(
        self, target: Target, params: Iterable[Mapping[str, Any]], **options: Unpack[SubmitOptions]
    ) -> list[str]:
        """Create many jobs of one type in few round trips and return their ids in order. All are validated first.

        Raises as `submit`. ``unique_key`` and ``job_id`` belong to a single job and are not accepted.
        """
        return run_sync(self._async.submit_many(target, params, **options))

    def worker(
        self, *, concurrency: int | None = None, queues: Iterable[str] | None = None, only: str | None = None
    ) -> Worker:
        """Return a worker for these handlers.

        Run it with ``jobs.worker().run()`` until a signal, or with ``await jobs.worker().serve()``. `concurrency` is
        the maximum number of concurrent jobs (default 10), `queues` are the queues to serve, `only` is the id of a
        single job.
        """
        return self._async.worker(concurrency=concurrency, queues=queues, only=only)

    def ensure_worker(self) -> None:
        """Start a worker thread for a store in memory, unless there is a worker that has all handlers.

        Every submit does this. Call it after creating jobs for these handlers in another way.
        """
        self._async.ensure_worker()

    def run_workers(
        self, workers: int = 1, *, concurrency: int | None = None, queues: Sequence[str] | None = None
    ) -> WorkerGroup:
        """Run workers beside other code: ``with jobs.run_workers()`` in threads, ``async with`` in an event loop."""
        return self._async.run_workers(workers, concurrency=concurrency, queues=queues)

    def lifespan(
        self, workers: int = 1, *, concurrency: int | None = None, queues: Sequence[str] | None = None
    ) -> Callable[[Any], AbstractAsyncContextManager[None]]:
        """Return a lifespan with workers for an ASGI application: ``FastAPI(lifespan=jobs.lifespan())``."""
        return self._async.lifespan(workers, concurrency=concurrency, queues=queues)

    def job_types(self) -> list[JobType]:
        """Return the published job types, with the limits and pauses that were set."""
        return run_sync(self._async.job_types())

    def job_type(self, name: str) -> JobType:
        """Return one published job type. Raises UnknownJobTypeError."""
        return run_sync(self._async.job_type(name))

    def set_limit(self, job_type: str, limit: int | None = None, *, paused: bool = False) -> None:
        """Set the maximum number of concurrent runs of a type over all workers, or pause it.

        (None, False) removes both.
        """
        run_sync(self._async.set_limit(job_type, limit, paused=paused))

    def workers(self) -> list[WorkerEntry]:
        """Return the live workers."""
        return run_sync(self._async.workers())
