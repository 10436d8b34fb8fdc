"""Jobs: the blocking API of AsyncJobs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Concatenate, ParamSpec, Unpack, overload

from milepost.app.batches import Batch
from milepost.app.jobs import AsyncJobs, Target
from milepost.app.transactional import TransactionalJobs
from milepost.core.job import Job
from milepost.core.result_types import JsonR, R
from milepost.manager.manager import open_runtime
from milepost.manager.sync import BlockingMethods, JobManager
from milepost.run.async_run import AsyncRun
from milepost.settings import Settings
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import adapted, blocking, delegated, run_sync
from milepost.worker.dispatcher import Dispatcher, TaskQueue
from milepost.worker.handlers import Handler, HandlerOptions, Handlers, SubmitOptions, Submittable

P = ParamSpec("P")


class Jobs(BlockingMethods):
    """The jobs of an application in blocking code: a JobManager with handlers, `submit` and workers.

    `url` is the store (default: MILEPOST_URL, else REDIS_URL, else in memory), or a manager. In memory, a submit for which
    there is no worker starts a worker thread. The manager is in `manager`, and its methods are also methods of this object.
    `handlers` shares those of another object. With `task_queue`, a task queue of `milepost.integrations`, the workers of that task
    queue run the submitted jobs.
    """

    _async: AsyncJobs

    def __init__(
        self,
        url: JobManager | Store | str | None = None,
        *,
        ttl: float | None = None,
        options: Settings | None = None,
        handlers: Handlers | None = None,
        task_queue: TaskQueue | Dispatcher | None = None,
    ) -> None:
        if not isinstance(url, JobManager):
            url = JobManager.of(open_runtime(url, ttl, options, blocking=True))
        self.manager = url
        self._async = AsyncJobs(self.manager._async, handlers=handlers, task_queue=task_queue)

    @property
    def dispatcher(self) -> Dispatcher | None:
        """Return the dispatcher to the task queue, or None."""
        return self._async.dispatcher

    @property
    def handlers(self) -> Handlers:
        """Return the handlers by job type."""
        return self._async.handlers

    track = delegated(JobManager.track, "manager")
    batch = adapted(AsyncJobs.batch, Batch)
    submit_many = blocking(AsyncJobs.submit_many)
    job_types = blocking(AsyncJobs.job_types)
    job_type = blocking(AsyncJobs.job_type)
    set_limit = blocking(AsyncJobs.set_limit)
    limit = blocking(AsyncJobs.limit)
    limits = blocking(AsyncJobs.limits)
    remove_limit = blocking(AsyncJobs.remove_limit)
    close_gate = blocking(AsyncJobs.close_gate)
    open_gate = blocking(AsyncJobs.open_gate)
    workers = blocking(AsyncJobs.workers)
    add_schedule = blocking(AsyncJobs.add_schedule)
    schedule = delegated(AsyncJobs.schedule, "_async")
    worker = delegated(AsyncJobs.worker, "_async")
    ensure_worker = delegated(AsyncJobs.ensure_worker, "_async")
    run_workers = delegated(AsyncJobs.run_workers, "_async")
    with_manager = delegated(AsyncJobs.with_manager, "_async")
    lifespan = delegated(AsyncJobs.lifespan, "_async")

    @overload
    def job(self, function: Callable[Concatenate[AsyncRun, P], R], /) -> Handler[P, R]: ...

    @overload
    def job(
        self, job_type: str | None = None, **options: Unpack[HandlerOptions]
    ) -> Callable[[Callable[Concatenate[AsyncRun, P], R]], Handler[P, R]]: ...

    def job(self, job_type: Any = None, **options: Unpack[HandlerOptions]) -> Any:
        """Register a function as the handler of a job type: ``@jobs.job("reindex", max_attempts=3, timeout="2h")``.

        The default type is the name of the function: ``@jobs.job``. Its first parameter is the Run; the others are
        typed, and validated before a job is accepted. The options are those of `HandlerOptions`. Raises InvalidInputError.
        """
        return self._async.job(job_type, **options)

    @overload
    def submit(
        self, target: Submittable[P, Coroutine[Any, Any, JsonR]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[JsonR]: ...

    @overload
    def submit(self, target: Submittable[P, JsonR], /, *args: P.args, **kwargs: P.kwargs) -> Job[JsonR]: ...

    @overload
    def submit(self, target: Submittable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Job: ...

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

    def using(self, connection: object) -> TransactionalJobs:
        """Return an object whose `submit` and `submit_many` create jobs in an open transaction: they exist if it commits.

        `connection` is to the database of a PostgreSQL store: of psycopg 3, a Session or Connection of SQLAlchemy with that
        driver, or Django's connection. `Jobs` takes blocking ones and `AsyncJobs` async ones, such as an AsyncSession.
        Raises InvalidInputError.
        """
        return TransactionalJobs(self._async, connection)

    def __repr__(self) -> str:
        return f"Jobs({self.store.url!r})"
