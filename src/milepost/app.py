"""Jobs and AsyncJobs: a manager, its handlers and its worker in one object. Owns submit and what joins the three; how jobs
are recorded is the manager's, how they are run the worker's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Unpack, overload

from milepost.core.errors import DuplicateJob, InvalidInput
from milepost.core.job import Job
from milepost.core.lifecycle import plan_cancel, plan_create
from milepost.manager.asynchronous import AsyncJobManager
from milepost.manager.synchronous import JobManager
from milepost.settings import Settings
from milepost.stores.driving import drive
from milepost.stores.ids import new_job_id, new_op
from milepost.stores.protocol import Store, Write
from milepost.tracking.run import Run
from milepost.tracking.sweeper import HAND_OVER_AGAIN
from milepost.tracking.tracing import submitting
from milepost.worker.engine import Engine, Handing
from milepost.worker.handlers import Configured, Handler, Handlers, Isolation, SubmitOptions
from milepost.worker.hosting import Running, lifespan_of
from milepost.worker.loop import Worker
from milepost.worker.published import JobType, WorkerEntry, read_type, read_types, read_workers
from milepost.worker.submission import Submission, Submissions

P = ParamSpec("P")
R = TypeVar("R")
Target = Handler[Any, Any] | Configured[Any, Any] | str

SUPERSEDE_TRIES = 20
BULK = 500


class AsyncJobs(AsyncJobManager):
    """An application's jobs, for code in an event loop: all of AsyncJobManager, handlers, `submit` and workers.

    `url` is where jobs live (default: MILEPOST_URL, else REDIS_URL, else in memory). In memory a worker thread starts
    at the first submit. `handlers` shares those of another object. With an `engine`
    of `milepost.engines` that engine's workers run what is submitted here; the `handing` of another object shares it.
    """

    def __init__(
        self,
        url: Store | str | None = None,
        *,
        ttl: float | None = None,
        options: Settings | None = None,
        handlers: Handlers | None = None,
        engine: Engine | Handing | None = None,
    ) -> None:
        super().__init__(url, ttl=ttl, options=options)
        self.handlers = Handlers() if handlers is None else handlers
        self.handing = engine if isinstance(engine, Handing | None) else Handing(self, engine)
        named = self.handing.engine.name if self.handing is not None else None
        self._submissions = Submissions(self.handlers, self.store, named)
        self._own_workers: list[Running] = []
        self._own_types: frozenset[str] = frozenset()
        self._workers_made = 0
        self._lock = threading.Lock()

    def job(
        self,
        job_type: str | None = None,
        *,
        max_attempts: int = 1,
        timeout: float | timedelta | str | None = None,
        on_lost: Literal["retry", "fail"] = "retry",
        isolation: Isolation | None = None,
        concurrency: int | None = None,
        priority: int = 0,
        labels: Mapping[str, str] | None = None,
    ) -> Callable[[Callable[Concatenate[Run, P], R]], Handler[P, R]]:
        """Register a function as the handler of a job type: ``@jobs.job("reindex", max_attempts=3, timeout="2h")``.

        Its first parameter is the Run; the others are typed, and checked before a job is accepted. `timeout` is for
        one attempt. `on_lost="fail"` ends a job whose process died instead of running it again. `isolation`:
        ``"process"`` runs it in a child process; by default async functions run in the worker's event loop and sync
        ones in threads. `concurrency` is the most runs of this type at once, over all workers. Raises InvalidInput.
        """
        if self.handing is not None and (concurrency is not None or isolation is not None):
            name = self.handing.engine.name
            raise InvalidInput(
                "isolation" if concurrency is None else "concurrency", f"is not kept by {name}: set it there"
            )
        return self.handlers.job(
            job_type,
            max_attempts=max_attempts,
            timeout=timeout,
            on_lost=on_lost,
            isolation=isolation,
            concurrency=concurrency,
            priority=priority,
            labels=labels,
        )

    @overload
    async def submit(
        self, target: Handler[P, Any] | Configured[P, Any], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job: ...

    @overload
    async def submit(
        self, target: str, params: Mapping[str, Any] | None = None, /, **options: Unpack[SubmitOptions]
    ) -> Job: ...

    async def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        """Record a job for the workers: ``submit(reindex, index="docs")``, ``submit(reindex.options(priority=5), ...)``,
        or by name, from anywhere, ``submit("reindex", {"index": "docs"}, priority=5)``.

        With a `unique_key` that a pending or running job has, `on_duplicate` decides: ``"return"`` gives that job,
        ``"refuse"`` raises DuplicateJob, ``"supersede"`` cancels it and records this one in one atomic step; the new one waits until
        the code of the other has stopped. Raises InvalidInput that names the parameter, UnknownJobType, DuplicateJob.
        """
        wanted = await self._submissions.make(target, args, kwargs)
        with submitting(wanted.fields):
            job = await self._record(wanted)
            await self.give([job])
        return job

    async def give(self, jobs: Sequence[Job]) -> None:
        """See to it that jobs which were just recorded are run: by the engine, or in memory by a thread of ours.

        Every submit does this; to be called by what records jobs for these handlers in another way.
        """
        handing = self.handing
        ours = [job for job in jobs if handing is not None and job.record.get("engine") == handing.engine.name]
        if handing is not None and ours:
            await handing.give(self.store, ours)
        if len(ours) < len(jobs):
            self.ensure_worker()

    async def retry_job(self, job_id: str, *, only_failed: bool = False) -> Job:
        """See AsyncJobManager.retry_job."""
        job = await super().retry_job(job_id, only_failed=only_failed)
        await self.give([job])
        return job

    async def _record(self, wanted: Submission) -> Job:
        if wanted.on_duplicate == "supersede" and "unique_key" in wanted.fields:
            return await self._supersede(wanted)
        try:
            return await self._create(wanted.job_id, wanted.fields, self._again(wanted))
        except DuplicateJob as refused:
            if wanted.on_duplicate == "return" and refused.job is not None and _has_key(refused.job, wanted):
                return refused.job
            raise

    def _again(self, wanted: Submission) -> int | None:
        """What `plan_create` is to be told: whether this process hands the job to its engine as soon as it is recorded."""
        is_ours = self.handing is not None and wanted.fields.get("engine") == self.handing.engine.name
        return HAND_OVER_AGAIN if is_ours else None

    async def _supersede(self, wanted: Submission) -> Job:
        """Cancel the holder of the key and record the job, in one step; again when the holder has changed."""
        for _ in range(SUPERSEDE_TRIES):
            try:
                return await self._create(wanted.job_id, wanted.fields, self._again(wanted))
            except DuplicateJob as refused:
                holder = refused.job
                if holder is None or holder.job_id == wanted.job_id or not _has_key(holder, wanted):
                    raise
            job_id = wanted.job_id or new_job_id()
            cancel = plan_cancel(new_op(), by="submit", why=f"superseded by {job_id}", message="Job superseded")
            create = plan_create(wanted.fields, new_op(), self._again(wanted))
            writes = [Write(holder.job_id, cancel, answer=False), Write(job_id, create)]
            outcome = (await self.store.apply(writes)).outcomes[1]
            if outcome.accepted and outcome.job is not None:
                return outcome.job
            if outcome.holder is None:
                raise DuplicateJob(f"Job {job_id} already exists", job=outcome.job)
        raise DuplicateJob(f"unique_key: its holder changed {SUPERSEDE_TRIES} times meanwhile", job=holder)

    async def submit_many(
        self, target: Target, params: Iterable[Mapping[str, Any]], **options: Unpack[SubmitOptions]
    ) -> list[str]:
        """Record many jobs of one type, in few round trips; their ids, in order. All are checked before the first is sent.

        Raises as `submit`; ``unique_key`` and ``job_id`` are of one job each, and not taken here.
        """
        for name in ("unique_key", "job_id"):
            if options.get(name) is not None:
                raise InvalidInput(name, "belongs to one job; use submit")
        wanted = await self._submissions.make_many(target, params, options)
        answer = self.handing is not None
        writes = [
            Write(new_job_id(), plan_create(one.fields, new_op(), self._again(one)), answer=answer) for one in wanted
        ]
        for start in range(0, len(writes), BULK):
            outcomes = (await self.store.apply(writes[start : start + BULK])).outcomes
            await self.give([outcome.job for outcome in outcomes if outcome.job is not None])
        self.ensure_worker()
        return [write.job_id for write in writes]

    # --- workers ---

    def worker(
        self, *, concurrency: int | None = None, queues: Iterable[str] | None = None, only: str | None = None
    ) -> Worker:
        """A worker for these handlers: ``jobs.worker().run()`` until a signal, or ``await jobs.worker().serve()``.

        `concurrency` is the most jobs at once (default 10), `queues` the types to serve, `only` the one job to run.
        """
        with self._lock:
            self._workers_made += 1
        return Worker(self, concurrency=concurrency, queues=queues, only=only)

    def running(
        self, workers: int = 1, *, concurrency: int | None = None, queues: Sequence[str] | None = None
    ) -> Running:
        """Workers beside other code: ``async with jobs.running()`` in its event loop, ``with`` in threads."""
        return Running([self.worker(concurrency=concurrency, queues=queues) for _ in range(workers)])

    def lifespan(
        self, workers: int = 1, *, concurrency: int | None = None, queues: Sequence[str] | None = None
    ) -> Callable[[Any], AbstractAsyncContextManager[None]]:
        """The lifespan of an ASGI application with workers in it: ``FastAPI(lifespan=jobs.lifespan(workers=1))``."""
        return lifespan_of(lambda: self.running(workers, concurrency=concurrency, queues=queues))

    def ensure_worker(self) -> None:
        """In memory nobody else can run a job: start a thread that does, unless a worker was made already, and one more for
        handlers that came later.

        Every submit does this; to be called by what records jobs for these handlers in another way.
        """
        if len(self._own_types) == len(self.handlers) or not self.store.url.startswith("memory:"):
            return
        with self._lock:
            new = [name for name in self.handlers if name not in self._own_types]
            if self._workers_made or not new:
                return
            own = Running([Worker(self, queues=new)])
            self._own_workers.append(own)
            self._own_types = self._own_types.union(new)
        try:
            own.__enter__()
        except InvalidInput:
            with self._lock:
                self._own_types = self._own_types.difference(new)
            raise

    async def close(self) -> None:
        """End the worker threads of a store in memory, and give back the connections."""
        with self._lock:
            workers, self._own_workers, self._own_types = self._own_workers, [], frozenset()
        for own in workers:
            own.__exit__(None, None, None)
        if self.handing is not None and self.handing.app is self:
            self.handing.close()
        await super().close()

    # --- types ---

    async def job_types(self) -> list[JobType]:
        """The types that workers have published, with limits and pauses that were set."""
        limits = await self.store.limits()
        types = []
        for known in await read_types(self.store):
            limit, paused = limits.get(known.name, (None, False))
            types.append(_limited(known, limit, paused))
        return types

    async def job_type(self, name: str) -> JobType:
        """One published type. Raises UnknownJobType."""
        limit, paused = (await self.store.limits()).get(name, (None, False))
        return _limited(await read_type(self.store, name), limit, paused)

    async def set_limit(self, job_type: str, limit: int | None = None, *, paused: bool = False) -> None:
        """Set the most runs of a type at once, for all workers and at once, or pause it. (None, False) takes both away."""
        await self.store.set_limit(job_type, limit, paused)

    async def workers(self) -> list[WorkerEntry]:
        """The workers that live."""
        return await read_workers(self.store)


def _has_key(job: Job, wanted: Submission) -> bool:
    return job.unique_key is not None and job.unique_key == wanted.fields.get("unique_key")


def _limited(known: JobType, limit: int | None, paused: bool) -> JobType:
    return replace(known, limit=limit, paused=paused)


class _BlockingFace(AsyncJobs):
    """The same calls over a blocking store: none of them ever suspends."""

    _blocking = True


class Jobs(JobManager):
    """An application's jobs, for code that blocks: all of JobManager, handlers, `submit` and workers. See AsyncJobs."""

    _face: _BlockingFace

    def __init__(
        self,
        url: Store | str | None = None,
        *,
        ttl: float | None = None,
        options: Settings | None = None,
        engine: Engine | None = None,
    ) -> None:
        self._face = _BlockingFace(url, ttl=ttl, options=options, engine=engine)

    @property
    def handing(self) -> Handing | None:
        """What hands jobs to the engine, where there is one."""
        return self._face.handing

    @property
    def handlers(self) -> Handlers:
        """The handlers, by job type."""
        return self._face.handlers

    def job(
        self,
        job_type: str | None = None,
        *,
        max_attempts: int = 1,
        timeout: float | timedelta | str | None = None,
        on_lost: Literal["retry", "fail"] = "retry",
        isolation: Isolation | None = None,
        concurrency: int | None = None,
        priority: int = 0,
        labels: Mapping[str, str] | None = None,
    ) -> Callable[[Callable[Concatenate[Run, P], R]], Handler[P, R]]:
        """See AsyncJobs.job."""
        return self._face.job(
            job_type,
            max_attempts=max_attempts,
            timeout=timeout,
            on_lost=on_lost,
            isolation=isolation,
            concurrency=concurrency,
            priority=priority,
            labels=labels,
        )

    @overload
    def submit(self, target: Handler[P, Any] | Configured[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Job: ...

    @overload
    def submit(
        self, target: str, params: Mapping[str, Any] | None = None, /, **options: Unpack[SubmitOptions]
    ) -> Job: ...

    def submit(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        """See AsyncJobs.submit."""
        return drive(self._face.submit(target, *args, **kwargs))

    def submit_many(
        self, target: Target, params: Iterable[Mapping[str, Any]], **options: Unpack[SubmitOptions]
    ) -> list[str]:
        """See AsyncJobs.submit_many."""
        return drive(self._face.submit_many(target, params, **options))

    def worker(
        self, *, concurrency: int | None = None, queues: Iterable[str] | None = None, only: str | None = None
    ) -> Worker:
        """See AsyncJobs.worker."""
        return self._face.worker(concurrency=concurrency, queues=queues, only=only)

    def ensure_worker(self) -> None:
        """See AsyncJobs.ensure_worker."""
        self._face.ensure_worker()

    def running(
        self, workers: int = 1, *, concurrency: int | None = None, queues: Sequence[str] | None = None
    ) -> Running:
        """See AsyncJobs.running."""
        return self._face.running(workers, concurrency=concurrency, queues=queues)

    def lifespan(
        self, workers: int = 1, *, concurrency: int | None = None, queues: Sequence[str] | None = None
    ) -> Callable[[Any], AbstractAsyncContextManager[None]]:
        """See AsyncJobs.lifespan."""
        return self._face.lifespan(workers, concurrency=concurrency, queues=queues)

    def job_types(self) -> list[JobType]:
        """See AsyncJobs.job_types."""
        return drive(self._face.job_types())

    def job_type(self, name: str) -> JobType:
        """See AsyncJobs.job_type."""
        return drive(self._face.job_type(name))

    def set_limit(self, job_type: str, limit: int | None = None, *, paused: bool = False) -> None:
        """See AsyncJobs.set_limit."""
        drive(self._face.set_limit(job_type, limit, paused=paused))

    def workers(self) -> list[WorkerEntry]:
        """See AsyncJobs.workers."""
        return drive(self._face.workers())
