"""Jobs: the blocking API of AsyncJobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from milepost.app.jobs import AsyncJobs, Target
from milepost.core.job import Job
from milepost.manager.manager import AsyncJobManager, open_runtime
from milepost.manager.sync import JobManager
from milepost.run.run import Run
from milepost.run.runtime import Runtime
from milepost.settings import Settings
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import blocking, blocking_iterator, delegated, run_sync
from milepost.worker.dispatcher import Dispatcher, TaskQueue
from milepost.worker.handlers import ConfiguredHandler, Handler, HandlerOptions, Handlers, SubmitOptions

P = ParamSpec("P")
R = TypeVar("R")


class Jobs:
    """The jobs of an application in blocking code: a JobManager with handlers, `submit` and workers.

    `url` is the store (default: MILEPOST_URL, else REDIS_URL, else in memory), or a manager. In memory, a worker thread
    starts at the first submit. `manager` has the methods of the manager, which are also methods of this object. With `task_queue`, a task queue of `milepost.integrations`, the workers of that task queue run the
    submitted jobs.
    """

    def __init__(
        self,
        url: JobManager | Store | str | None = None,
        *,
        ttl: float | None = None,
        options: Settings | None = None,
        task_queue: TaskQueue | Dispatcher | None = None,
    ) -> None:
        if not isinstance(url, JobManager):
            url = JobManager.of(open_runtime(url, ttl, options, blocking=True))
        self.manager = url
        self._async = AsyncJobs(self.manager._async, task_queue=task_queue)

    @property
    def store(self) -> Store:
        """Return the store of the jobs."""
        return self._async.store

    @property
    def settings(self) -> Settings:
        """Return the settings of this manager."""
        return self._async.settings

    @property
    def ttl(self) -> float:
        """Return how many seconds an ended job is kept."""
        return self._async.ttl

    @property
    def runtime(self) -> Runtime:
        """Return the heartbeat and the sweeper of this manager."""
        return self._async.runtime

    @property
    def dispatcher(self) -> Dispatcher | None:
        """Return the dispatcher to the task queue, or None."""
        return self._async.dispatcher

    @property
    def handlers(self) -> Handlers:
        """Return the handlers by job type."""
        return self._async.handlers

    create_job = blocking(AsyncJobManager.create_job, "manager._async")
    get_job = blocking(AsyncJobManager.get_job, "manager._async")
    update_job = blocking(AsyncJobManager.update_job, "manager._async")
    list_jobs = blocking(AsyncJobManager.list_jobs, "manager._async")
    delete_job = blocking(AsyncJobManager.delete_job, "manager._async")
    find = blocking(AsyncJobManager.find, "manager._async")
    count_jobs = blocking(AsyncJobManager.count_jobs, "manager._async")
    history = blocking(AsyncJobManager.history, "manager._async")
    cancel_job = blocking(AsyncJobManager.cancel_job, "manager._async")
    events = blocking(AsyncJobManager.events, "manager._async")
    wait = blocking(AsyncJobManager.wait, "manager._async")
    result = blocking(AsyncJobManager.result, "manager._async")
    enqueue = blocking(AsyncJobManager.enqueue, "manager._async")
    watch = blocking_iterator(AsyncJobManager.watch, "manager._async")
    track = delegated(JobManager.track, "manager")
    retry_job = blocking(AsyncJobs.retry_job)
    close = blocking(AsyncJobs.close)
    submit_many = blocking(AsyncJobs.submit_many)
    job_types = blocking(AsyncJobs.job_types)
    job_type = blocking(AsyncJobs.job_type)
    set_limit = blocking(AsyncJobs.set_limit)
    workers = blocking(AsyncJobs.workers)
    worker = delegated(AsyncJobs.worker, "_async")
    ensure_worker = delegated(AsyncJobs.ensure_worker, "_async")
    run_workers = delegated(AsyncJobs.run_workers, "_async")
    with_manager = delegated(AsyncJobs.with_manager, "_async")
    lifespan = delegated(AsyncJobs.lifespan, "_async")

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

    def __repr__(self) -> str:
        return f"Jobs({self.store.url!r})"
