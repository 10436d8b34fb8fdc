"""Workers: one that is run in the main thread until a signal, or several beside other code, in threads or an event loop."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from milepost.core.activity import plural
from milepost.core.errors import InvalidInputError
from milepost.core.serialization import Duration, seconds
from milepost.core.values import JobStatus
from milepost.run.process_identity import process_name
from milepost.signals import shutdown
from milepost.stores.protocol import Store
from milepost.stores.sync_bridge import run_sync
from milepost.worker.event_loop import new_loop
from milepost.worker.handlers import Application, unnamed_error
from milepost.worker.worker_loop import WorkerLoop

log = logging.getLogger("milepost.worker")

DEFAULT_CONCURRENCY = 10
START_TIMEOUT = 30.0

_numbers = itertools.count(1)


class Worker:
    """Runs the jobs of an application until it is stopped: `serve` in an event loop, or `run` in the main thread.

    `concurrency` is the maximum number of concurrent jobs (default 10). `queues` are the queues to serve (default: for each
    type the queue with its name, and its default queue). `only` is the id of a single job, after which the worker ends. It
    also ends after `max_jobs` starts of jobs (one that wakes from a sleep counts again), or when it has had no job for
    `exit_when_idle`.
    """

    def __init__(
        self,
        app: Application,
        *,
        concurrency: int | None = None,
        queues: Iterable[str] | None = None,
        only: str | None = None,
        max_jobs: int | None = None,
        exit_when_idle: Duration | None = None,
    ) -> None:
        slots = DEFAULT_CONCURRENCY if concurrency is None else concurrency
        if isinstance(slots, bool) or not isinstance(slots, int) or not 1 <= slots <= 10_000:
            raise InvalidInputError("concurrency", f"{concurrency!r:.40} must be a whole number from 1 to 10000")
        if max_jobs is not None and (isinstance(max_jobs, bool) or not isinstance(max_jobs, int) or max_jobs < 1):
            raise InvalidInputError("max_jobs", f"{max_jobs!r:.40} must be a whole number of at least 1, or None")
        self.concurrency = slots
        self._max_jobs = max_jobs
        self._exit_when_idle = None if exit_when_idle is None else seconds(exit_when_idle, "exit_when_idle")
        self.settings = app.settings
        self.started = threading.Event()
        self.name = ""
        self._served = app.handlers.served(queues)
        self.handlers = {handler.job_type: handler for handler in self._served.values()}
        self._app = app
        self._single_job_id = only
        self._number = next(_numbers)
        self._loop: WorkerLoop | None = None
        self._stops = 0

    async def serve(self) -> None:
        """Run jobs until `stop` is called, then drain: running jobs are stopped and released uncharged."""
        for handler in self.handlers.values():
            if handler.type_options.isolation == "process":
                handler.require_importable()
                if not handler.is_importable:
                    raise unnamed_error(handler.reference)
        self.name = f"{process_name()}:{self._number}"
        self._loop = loop = WorkerLoop(
            self._app,
            self.name,
            self.concurrency,
            self._served,
            self._single_job_id,
            self._max_jobs,
            self._exit_when_idle,
        )
        if self._stops:
            loop.stop(self._stops)
        await loop.serve(self.started.set)

    @property
    def closed(self) -> bool:
        """Return whether the worker has ended its runs."""
        return self._loop is not None and self._loop.closed

    @property
    def is_stopping(self) -> bool:
        """Return whether the worker was stopped."""
        return self._stops > 0 or (self._loop is not None and self._loop.stops > 0)

    @property
    def running(self) -> int:
        """Return how many jobs the worker runs now."""
        return 0 if self._loop is None else len(self._loop._state.running)

    def run(self) -> int:
        """Run in the main thread until SIGTERM or SIGINT, at once on the second; return the exit code."""
        return run_in_main_thread(self)

    def stop(self, *, at_once: bool = False) -> None:
        """Drain and end. Called again, or with `at_once`, do not wait for code that ignores its stop. Thread-safe."""
        self._stops = 2 if at_once or self.is_stopping else 1
        if self._loop is not None:
            self._loop.stop(self._stops)


def run_worker(
    app: Application,
    *,
    concurrency: int | None = None,
    queues: Iterable[str] | None = None,
    only: str | None = None,
) -> int:
    """Run a worker in the main thread until SIGTERM or SIGINT and return the exit code.

    The first signal drains it, the second stops it at once. `only` is the id of the single job to run. Released jobs wait
    for the next worker. In memory there is none: the jobs end with the process, and a warning says how many are lost.
    """
    return run_in_main_thread(Worker(app, concurrency=concurrency, queues=queues, only=only))


def run_in_main_thread(worker: Worker) -> int:
    """Run a worker with its own signal handlers, and restore the previous ones afterwards; return the exit code."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_signal(number: int, frame: object) -> None:
        worker.stop()  # nothing else: this thread may be within a lock of a log handler, and a log line would fail or hang

    for number in before:
        signal.signal(number, on_signal)
    try:
        run_loop(worker)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    _warn_of_lost_jobs(worker._app.store)
    return 0


def _warn_of_lost_jobs(store: Store) -> None:
    """Log how many unfinished jobs end with this process, because their store is its memory."""
    if not store.shared:
        counts = run_sync(store.with_blocking(blocking=True).counts())
        if lost := sum(count for (_, status), count in counts.items() if not JobStatus(status).is_terminal):
            log.warning("unfinished jobs lost: %d (the store is in memory)", lost)


def run_loop(worker: Worker) -> None:
    """Run a worker in a new event loop. Tasks that its handlers left behind and that do not end are abandoned."""
    loop = new_loop()
    try:
        # A signal is handled at the next turn of the loop, which the wakeup descriptor triggers at once.
        loop.run_until_complete(worker.serve())
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


class WorkerGroup:
    """Workers beside other code: ``with`` runs them in threads, ``async with`` in the event loop.

    They drain at the end of the block, which may be Ctrl-C. In the event loop of a server they start to drain at the signal
    itself, because the server waits for open requests before it ends its lifespan. A second signal, or Ctrl-C, stops them at once.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self._threads: list[threading.Thread] = []
        self._ends: list[Future[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._errors: list[BaseException] = []

    def __enter__(self) -> Self:
        for worker in self.workers:
            end = Future[None]()
            thread = threading.Thread(target=self._run, args=(worker, end), name="milepost-worker", daemon=True)
            thread.start()
            self._ends.append(end)
            self._threads.append(thread)
        try:
            for worker in self.workers:
                worker.started.wait(START_TIMEOUT)
            if self._errors:
                raise self._errors[0]
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def _run(self, worker: Worker, end: Future[None]) -> None:
        try:
            run_loop(worker)
        except BaseException as error:
            if worker.started.is_set():
                raise
            self._errors.append(error)
        finally:
            worker.started.set()  # do not wait for a worker that could not start
            end.set_result(None)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            for worker in self.workers:
                worker.stop()
            running = sum(worker.running for worker in self.workers)
            if kind is KeyboardInterrupt and running:
                log.warning(
                    "waiting for %s to stop; press Ctrl-C again to stop at once", plural(running, "running job")
                )
            self._join()
        except KeyboardInterrupt:
            for worker in self.workers:
                worker.stop(at_once=True)
            self._join()  # their jobs go back to the queue; killed with them, these would count as crashed
            raise

    def _join(self) -> None:
        # After an interrupted `Thread.join`, Python 3.11 and 3.12 take a running thread for ended: only a Future can be awaited again.
        wait(self._ends)
        for thread in self._threads:
            thread.join()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(worker.serve()) for worker in self.workers]
        for task, worker in zip(self._tasks, self.workers, strict=True):
            while not worker.started.is_set() and not task.done():
                await asyncio.sleep(0.005)
            if task.done():
                if task.exception() is not None:
                    self._on_signal()
                    await asyncio.wait(self._tasks)
                await task
        shutdown.add(self._on_signal)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for worker in self.workers:
            if not worker.is_stopping:
                worker.stop()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            shutdown.remove(self._on_signal)

    def _on_signal(self) -> None:
        for worker in self.workers:
            worker.stop()


def lifespan_of(workers: Callable[[], WorkerGroup]) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return a lifespan for an ASGI application: ``FastAPI(lifespan=jobs.lifespan(workers=1))``."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with workers():
            yield

    return lifespan
