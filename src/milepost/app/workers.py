"""The workers of an application: those that it makes, and the one that a store in memory starts by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import Duration
from milepost.forks import reset_after_fork
from milepost.run.runtime import Runtime
from milepost.settings import Settings
from milepost.stores.protocol import Store
from milepost.worker.handlers import Handlers
from milepost.worker.worker import Worker, WorkerGroup, lifespan_of


class WorkerMethods:
    """The methods of AsyncJobs for workers."""

    handlers: Handlers
    store: Store
    settings: Settings
    runtime: Runtime
    _worker_owner: WorkerMethods

    def _begin_without_workers(self) -> None:
        self._own_workers: list[WorkerGroup] = []
        self._own_types: frozenset[str] = frozenset()
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        self._worker_owner = self
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the workers that only the parent has."""
        self._lock = threading.Lock()
        self._own_workers, self._own_types = [], frozenset()
        self._workers = [worker for worker in self._workers if not worker.started.is_set()]

    def worker(
        self,
        *,
        concurrency: int | None = None,
        queues: Iterable[str] | None = None,
        only: str | None = None,
        max_jobs: int | None = None,
        exit_when_idle: Duration | None = None,
    ) -> Worker:
        """Return a worker for these handlers.

        Run it with ``jobs.worker().run()`` until a signal, or with ``await jobs.worker().serve()``. `concurrency` is
        the maximum number of concurrent jobs (default 10), `queues` are the queues to serve, `only` is the id of a
        single job. The worker ends by itself after `max_jobs` starts of jobs, or when it has had no job for
        `exit_when_idle` (seconds, or text such as "2m").
        """
        made = Worker(
            self, concurrency=concurrency, queues=queues, only=only, max_jobs=max_jobs, exit_when_idle=exit_when_idle
        )
        with self._lock:
            self._workers = [*(worker for worker in self._workers if not worker.closed), made]
        return made

    def run_workers(
        self, workers: int = 1, *, concurrency: int | None = None, queues: Sequence[str] | None = None
    ) -> WorkerGroup:
        """Run workers beside other code: ``async with jobs.run_workers()`` in its event loop, ``with`` in threads."""
        return WorkerGroup([self.worker(concurrency=concurrency, queues=queues) for _ in range(workers)])

    def lifespan(
        self, workers: int = 1, *, concurrency: int | None = None, queues: Sequence[str] | None = None
    ) -> Callable[[Any], AbstractAsyncContextManager[None]]:
        """Return a lifespan with workers for an ASGI application: ``FastAPI(lifespan=jobs.lifespan())``."""
        return lifespan_of(lambda: self.run_workers(workers, concurrency=concurrency, queues=queues))

    def ensure_worker(self) -> None:
        """Start a worker thread for a store in memory, unless there is a worker that has all handlers.

        Every submit does this. Call it after creating jobs for these handlers in another way.
        """
        if self._worker_owner is not self:
            self._worker_owner.ensure_worker()
            return
        if len(self._own_types) == len(self.handlers) or self.store.shared:
            return
        with self._lock:
            new = [name for name in self.handlers if name not in self._own_types]
            if not new or any(not worker.closed for worker in self._workers):
                return
            defaults = (self.handlers[name].type_options.queue for name in new)
            own = WorkerGroup([Worker(self, queues=[*new, *filter(None, defaults)])])
            self._own_workers.append(own)
            self._own_types = self._own_types.union(new)
        try:
            own.__enter__()
        except InvalidInputError:
            with self._lock:
                self._own_types = self._own_types.difference(new)
            raise

    def _end_own_workers(self) -> None:
        with self._lock:
            workers, self._own_workers, self._own_types = self._own_workers, [], frozenset()
        for own in workers:
            own.__exit__(None, None, None)
