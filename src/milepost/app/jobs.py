"""AsyncJobs: a job manager with handlers, `submit`, workers and dispatch in one object."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, Unpack, overload

from milepost.app.batches import AsyncBatch, OnError
from milepost.app.limits import LimitMethods
from milepost.app.schedules import ScheduleDeclarations
from milepost.app.transactional import AsyncTransactionalJobs
from milepost.app.workers import WorkerMethods
from milepost.core.errors import DuplicateJobError, InvalidInputError
from milepost.core.job import Job
from milepost.core.limits import Limit
from milepost.core.result_types import JsonR, R
from milepost.core.serialization import Duration
from milepost.core.transitions import plan_cancel
from milepost.manager.manager import AsyncJobManager
from milepost.manager.validation import creation_error, plan_new
from milepost.run.async_run import AsyncRun
from milepost.run.otel import submit_span
from milepost.run.sweeper import REDISPATCH_DELAY
from milepost.settings import Settings
from milepost.stores.cycles import refuse_cycle
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import delegated
from milepost.worker.dispatcher import Dispatcher, TaskQueue
from milepost.worker.handlers import Handler, HandlerOptions, Handlers, SubmitOptions, Submittable
from milepost.worker.registry import JobType, WorkerEntry, read_type, read_types, read_workers
from milepost.worker.submission import Submission, SubmissionBuilder

P = ParamSpec("P")
Target = Submittable[..., Any] | str

MAX_SUPERSEDE_ATTEMPTS, BULK_SIZE = 20, 500


class AsyncJobs(ScheduleDeclarations, LimitMethods, WorkerMethods):
    """The jobs of an application in an event loop: an AsyncJobManager with handlers, `submit` and workers.

    `url` is the store (default: MILEPOST_URL, else REDIS_URL, else in memory), or a manager. In memory, a submit for which
    there is no worker starts a worker thread. The manager is in `manager`, and its methods are also methods of this object.
    `handlers` shares those of another object. With `task_queue`, a task queue of `milepost.integrations`, the workers of that task
    queue run the submitted jobs; pass the `dispatcher` of another object to share it.
    """

    def __init__(
        self,
        url: AsyncJobManager | Store | str | None = None,
        *,
        ttl: float | None = None,
        options: Settings | None = None,
        handlers: Handlers | None = None,
        task_queue: TaskQueue | Dispatcher | None = None,
    ) -> None:
        self.handlers = Handlers() if handlers is None else handlers
        self._use(
            url if isinstance(url, AsyncJobManager) else AsyncJobManager(url, ttl=ttl, options=options), task_queue
        )

    def _use(self, manager: AsyncJobManager, task_queue: TaskQueue | Dispatcher | None = None) -> None:
        self.manager = manager
        self.store = manager.store
        self.settings = manager.settings
        self.ttl = manager.ttl
        self.runtime = manager.runtime
        self.dispatcher = task_queue if isinstance(task_queue, Dispatcher | None) else Dispatcher(self, task_queue)
        named = self.dispatcher.task_queue.name if self.dispatcher is not None else None
        self.submissions = SubmissionBuilder(self.handlers, self.store, named, self.manager.origin)
        self._begin_without_workers()

    create_job = delegated(AsyncJobManager.create_job, "manager")
    get_job = delegated(AsyncJobManager.get_job, "manager")
    update_job = delegated(AsyncJobManager.update_job, "manager")
    list_jobs = delegated(AsyncJobManager.list_jobs, "manager")
    delete_job = delegated(AsyncJobManager.delete_job, "manager")
    find, count_jobs = delegated(AsyncJobManager.find, "manager"), delegated(AsyncJobManager.count_jobs, "manager")
    history = delegated(AsyncJobManager.history, "manager")
    cancel_job = delegated(AsyncJobManager.cancel_job, "manager")
    retry_check = delegated(AsyncJobManager.retry_check, "manager")
    answer = delegated(AsyncJobManager.answer, "manager")
    pause, resume = delegated(AsyncJobManager.pause, "manager"), delegated(AsyncJobManager.resume, "manager")
    events = delegated(AsyncJobManager.events, "manager")
    watch = delegated(AsyncJobManager.watch, "manager")
    output, follow_output = delegated(AsyncJobManager.output, "manager"), delegated(AsyncJobManager.follow_output, "manager")  # fmt: skip
    usage, job_usage = delegated(AsyncJobManager.usage, "manager"), delegated(AsyncJobManager.job_usage, "manager")
    enqueue = delegated(AsyncJobManager.enqueue, "manager")
    track = delegated(AsyncJobManager.track, "manager")

    async def wait(self, job: Job[R] | str, timeout: Duration | None = None) -> Job[R]:
        """Wait until the job, given as a Job or by its id, has ended, and return it.

        Raises WaitTimeoutError after `timeout`, and JobNotFoundError.
        """
        return await self.manager.wait(job, timeout)

    async def result(self, job: Job[R] | str) -> R:
        """Return the result of a completed job, given as a Job or by its id.

        Raises ResultNotSerialisableError, with the text, if the result is not JSON, RejectedError, with the record as
        `.job`, if the job has not completed, and JobNotFoundError.
        """
        return await self.manager.result(job)

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
        if callable(job_type):
            return self.job()(job_type)
        if self.dispatcher is not None:
            for name in ("concurrency", "isolation", "queue"):
                if options.get(name) is not None:
                    queue = self.dispatcher.task_queue.name
                    raise InvalidInputError(name, f"not supported with {queue}; configure it in {queue}")
        return self.handlers.job(job_type, **options)

    @overload
    async def submit(
        self, target: Submittable[P, Coroutine[Any, Any, JsonR]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[JsonR]: ...

    @overload
    async def submit(self, target: Submittable[P, JsonR], /, *args: P.args, **kwargs: P.kwargs) -> Job[JsonR]: ...

    @overload
    async def submit(self, target: Submittable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> Job: ...

    @overload
    async def submit(
        self, target: str, params: Mapping[str, Any] | None = None, /, **options: Unpack[SubmitOptions]
    ) -> Job: ...

    async def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        """Create a job for the workers and return it.

        Use ``submit(reindex, index="docs")``, ``submit(reindex.options(priority=5), ...)``, or, from code without the
        handler, ``submit("reindex", {"index": "docs"}, priority=5)``.

        If a pending or running job has the same `unique_key`, `on_duplicate` decides: ``"return"`` returns that job,
        ``"refuse"`` raises DuplicateJobError, ``"supersede"`` cancels it and creates this one in one atomic step; the
        new job waits until the code of the old one has stopped. Raises InvalidInputError with the name of the
        parameter, UnknownJobTypeError and DuplicateJobError.
        """
        submission = await self.submissions.build(target, args, kwargs)
        with submit_span(submission.fields) as created:
            job = await self._record(submission)
            created(job.job_id)
            await self.dispatch([job])
        return job

    def batch(self, name: str, *, labels: Mapping[str, str] | None = None, on_error: OnError = "cancel") -> AsyncBatch:
        """Return a batch of jobs with exact counts and progress: ``async with jobs.batch("import-42") as batch``.

        One that is open is continued. Its jobs get its `labels`. An exception in the block fails it and cancels its jobs;
        with ``on_error="keep"`` they continue. Raises InvalidInputError.
        """
        return AsyncBatch(self, name, labels, on_error)

    async def dispatch(self, jobs: Sequence[Job]) -> None:
        """Dispatch new jobs to the task queue, or in memory to a worker thread of this object.

        Every submit does this. Call it after creating jobs for these handlers in another way.
        """
        dispatcher = self.dispatcher
        ours = [
            job for job in jobs if dispatcher is not None and job.record.get("task_queue") == dispatcher.task_queue.name
        ]
        ready = [job for job in ours if "held" not in job.record]
        if dispatcher is not None and ready:
            await dispatcher.dispatch(self.store, ready)
        if len(ours) < len(jobs):
            self.ensure_worker()

    async def retry_job(self, job_id: str, *, only_failed: bool = False, from_start: bool = False, dependents: bool = False) -> Job:  # fmt: skip
        """Return a failed or cancelled job to pending with a new retry budget; it continues where it stopped.

        `from_start` discards its checkpoint, state and kept results. `only_failed` submits a new job for the failed items only,
        with `retry_of`; this also works on completed jobs. `dependents` puts back the jobs that were cancelled because of it,
        too. Raises JobNotFoundError and IllegalTransitionError.
        """
        job = await self.manager.retry_job(
            job_id, only_failed=only_failed, from_start=from_start, dependents=dependents
        )
        await self.dispatch([job])
        return job

    async def _record(self, submission: Submission) -> Job:
        if submission.on_duplicate == "supersede" and "unique_key" in submission.fields:
            return await self._supersede(submission)
        try:
            return await self.manager._create(submission.job_id, submission.fields, self._dispatch_delay(submission))
        except DuplicateJobError as refused:
            if submission.on_duplicate == "return" and refused.job is not None and _has_key(refused.job, submission):
                return refused.job
            raise

    def _dispatch_delay(self, submission: Submission) -> int | None:
        """Return the `again` of `plan_create`: set if this process dispatches the job right after creating it."""
        is_ours = self.dispatcher is not None and submission.fields.get("task_queue") == self.dispatcher.task_queue.name
        return REDISPATCH_DELAY if is_ours else None

    async def _supersede(self, submission: Submission) -> Job:
        """Cancel the job that has the key and create the new one in one step; repeat if another job takes the key."""
        for _ in range(MAX_SUPERSEDE_ATTEMPTS):
            try:
                return await self.manager._create(
                    submission.job_id, submission.fields, self._dispatch_delay(submission)
                )
            except DuplicateJobError as refused:
                owner = refused.job
                if owner is None or owner.job_id == submission.job_id or not _has_key(owner, submission):
                    raise
            job_id = submission.job_id or self.runtime.ids.new_job_id()
            cancel = plan_cancel(
                self.runtime.ids.new_operation_id(),
                by="submit",
                why=f"superseded by {job_id}",
                message="Job superseded",
            )
            create = plan_new(submission.fields, self.runtime.ids.new_operation_id(), self._dispatch_delay(submission))
            writes = [Write(owner.job_id, cancel, answer=False), Write(job_id, create)]
            outcome = (await self.store.apply(writes)).outcomes[1]
            if outcome.accepted and outcome.job is not None:
                return outcome.job
            if outcome.key_owner_id is None:
                raise await creation_error(self.store, job_id, submission.fields, outcome)
        raise DuplicateJobError(
            f"unique_key: gave up after {MAX_SUPERSEDE_ATTEMPTS} attempts; the key kept changing owner",
            job=owner,
        )

    async def submit_many(
        self, target: Target, params: Iterable[Mapping[str, Any]], **options: Unpack[SubmitOptions]
    ) -> list[str]:
        """Create many jobs of one type in few round trips and return their ids in order. All are validated first.

        Raises as `submit`. ``unique_key`` and ``job_id`` belong to a single job and are not accepted.
        """
        ids = await self._create_many(await self._build_many(target, params, options))
        self.ensure_worker()
        return ids

    async def _build_many(
        self, target: Target, params: Iterable[Mapping[str, Any]], options: Mapping[str, Any]
    ) -> list[Submission]:
        for name in ("unique_key", "job_id"):
            if options.get(name) is not None:
                raise InvalidInputError(name, "belongs to a single job; use submit")
        return await self.submissions.build_many(target, params, options)

    async def _create_many(self, submissions: Sequence[Submission]) -> list[str]:
        """Create jobs and return their ids in order."""
        answer = self.dispatcher is not None
        if submissions:
            await refuse_cycle(self.store, submissions[0].fields)
        writes = [
            Write(
                self.runtime.ids.new_job_id(),
                plan_new(one.fields, self.runtime.ids.new_operation_id(), self._dispatch_delay(one)),
                answer=answer,
            )
            for one in submissions
        ]
        for start in range(0, len(writes), BULK_SIZE):
            batch = writes[start : start + BULK_SIZE]
            outcomes = (await self.store.apply(batch)).outcomes
            for write, one, outcome in zip(batch, submissions[start : start + BULK_SIZE], outcomes, strict=True):
                if not outcome.accepted:
                    raise await creation_error(self.store, write.job_id, one.fields, outcome)
            await self.dispatch([outcome.job for outcome in outcomes if outcome.job is not None])
        return [write.job_id for write in writes]

    def using(self, connection: object) -> AsyncTransactionalJobs:
        """Return an object whose `submit` and `submit_many` create jobs in an open transaction: they exist if it commits.

        `connection` is to the database of a PostgreSQL store: of psycopg 3, a Session or Connection of SQLAlchemy with that
        driver, or Django's connection. `Jobs` takes blocking ones and `AsyncJobs` async ones, such as an AsyncSession.
        Raises InvalidInputError.
        """
        return AsyncTransactionalJobs(self, connection)

    def with_manager(self, manager: AsyncJobManager) -> AsyncJobs:
        """Return jobs over another manager of the same store, with the handlers, dispatcher and worker of this object."""
        other = AsyncJobs(manager, handlers=self.handlers, task_queue=self.dispatcher)
        other._worker_owner = self
        return other

    async def close(self) -> None:
        """Close the connections. The manager can be used again."""
        self._end_own_workers()
        if self.dispatcher is not None and self.dispatcher.app is self:
            self.dispatcher.close()
        await self.manager.close()

    # --- types ---

    async def job_types(self) -> list[JobType]:
        """Return the published job types, with the limits and pauses that were set."""
        limits = await self.store.limits()
        types = []
        for known in await read_types(self.store):
            limit = limits.get(known.name, Limit())
            types.append(replace(known, limit=limit.running, paused=limit.paused))
        return types

    async def job_type(self, name: str) -> JobType:
        """Return one published job type. Raises UnknownJobTypeError."""
        limit = (await self.store.limits()).get(name, Limit())
        return replace(await read_type(self.store, name), limit=limit.running, paused=limit.paused)

    async def workers(self) -> list[WorkerEntry]:
        """Return the live workers."""
        return await read_workers(self.store)


def _has_key(job: Job, submission: Submission) -> bool:
    return job.unique_key is not None and job.unique_key == submission.fields.get("unique_key")
