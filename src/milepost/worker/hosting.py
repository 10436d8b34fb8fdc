"""Where a worker lives: in this process until a signal ends it, in a thread beside other code, or in somebody's event loop.

Owns signals and threads; how a worker works is `loop`'s.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Self

from milepost.worker.application import Application
from milepost.worker.loop import Worker
from milepost.worker.shutdown import shutdown

log = logging.getLogger("milepost.worker")

STARTS_WITHIN = 30.0


def run_worker(
    app: Application,
    *,
    concurrency: int | None = None,
    queues: Iterable[str] | None = None,
    only: str | None = None,
) -> int:
    """Run a worker until SIGTERM or SIGINT: the first drains it, the second stops it at once. The exit code.

    Called in the main thread. `only` is the id of the one job to run.
    """
    return run_in_main_thread(Worker(app, concurrency=concurrency, queues=queues, only=only))


def run_in_main_thread(worker: Worker) -> int:
    """Run a worker under signal handlers of its own; those from before come back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_signal(number: int, frame: object) -> None:
        log.info("%s: the worker %s", signal.Signals(number).name, "stops at once" if worker.is_stopping else "drains")
        worker.stop()

    for number in before:
        signal.signal(number, on_signal)
    try:
        run_loop(worker)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def run_loop(worker: Worker) -> None:
    """Run a worker in an event loop of its own. What its handlers left behind and does not end is left behind."""
    loop = asyncio.new_event_loop()
    try:
        # Signals are heard at the next turn of the loop, which a wakeup of the loop makes at once.
        loop.run_until_complete(worker.serve())
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


class Running:
    """Workers beside other code: ``with`` runs them in threads, ``async with`` in the event loop. They drain at its end.

    In the event loop of a server they begin to drain at the signal itself: the server waits for open requests before it
    ends what runs beside it. A second signal stops them at once.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self._threads: list[threading.Thread] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._errors: list[BaseException] = []

    def __enter__(self) -> Self:
        for worker in self.workers:
            thread = threading.Thread(target=self._run, args=(worker,), name="milepost-worker", daemon=True)
            thread.start()
            self._threads.append(thread)
        for worker in self.workers:
            worker.started.wait(STARTS_WITHIN)
        if self._errors:
            self.__exit__(None, None, None)
            raise self._errors[0]
        return self

    def _run(self, worker: Worker) -> None:
        try:
            run_loop(worker)
        except BaseException as error:
            if worker.started.is_set():
                raise
            self._errors.append(error)
        finally:
            worker.started.set()  # nobody is to wait for one that could not start

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self.workers:
            worker.stop()
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


def lifespan_of(workers: Callable[[], Running]) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan for an ASGI application: ``FastAPI(lifespan=jobs.lifespan(workers=1))``."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with workers():
            yield

    return lifespan
