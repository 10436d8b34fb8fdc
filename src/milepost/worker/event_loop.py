"""Event loops that know which threads the code of a run has started, so that its end can wait for them.

A task that awaits `asyncio.to_thread` is cancelled at once while its thread continues. Only the future of the thread
tells when the code has stopped. Workers and their child processes use these loops. In the loop of a host, such as a web
server, its owner can make `RunExecutor` the default executor.

`LoopWatchdog` logs where a loop is blocked; a `ThreadPool` runs sync handlers beside it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from milepost.run.context import current
from milepost.run.run import Run

P = ParamSpec("P")
T = TypeVar("T")


class RunExecutor(ThreadPoolExecutor):
    """A thread pool whose calls belong to the run that submitted them: the run ends after its calls.

    Use ``asyncio.get_running_loop().set_default_executor(RunExecutor())`` in a loop that is not a worker's.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in a thread, in the context of the caller."""
        context = copy_context()
        return _of_run(super().submit(lambda: context.run(fn, *args, **kwargs)))


class _RunLoop(asyncio.SelectorEventLoop):
    """The standard event loop, which also knows the calls in the user's own executors."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        if executor is None:
            return super().run_in_executor(None, func, *args)
        return asyncio.wrap_future(_of_run(executor.submit(func, *args)), loop=self)


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop, of the kind that the process has chosen (such as uvloop), if it has."""
    loop = asyncio.new_event_loop()
    if type(loop) is asyncio.SelectorEventLoop:
        loop.close()
        loop = _RunLoop()
    loop.set_default_executor(RunExecutor(thread_name_prefix="milepost-asyncio"))
    return loop


def run_in_new_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop and return its result, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)


def _of_run(call: Future[T]) -> Future[T]:
    run = current()
    if run is not None:
        run._threads.add(call)
        call.add_done_callback(run._threads.discard)
    return call


log = logging.getLogger("milepost.worker")

BLOCKED_AFTER = 1.0
CHECK_INTERVAL = 0.25
REPEAT_WARNING_AFTER = 30.0


class LoopWatchdog:
    """Watches one event loop. `run_of` returns the run of one of its tasks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, run_of: Callable[[asyncio.Task[object]], Run | None]) -> None:
        self._loop = loop
        self._run_of = run_of
        self._thread_id = threading.get_ident()
        self._seen = time.monotonic()
        self._is_pinged = False
        self._over = threading.Event()
        self._warned_at = 0.0

    def start(self) -> None:
        """Start to watch."""
        threading.Thread(target=self._watch, name="milepost-watchdog", daemon=True).start()

    def close(self) -> None:
        """Stop to watch."""
        self._over.set()

    def _on_turn(self) -> None:
        self._seen, self._is_pinged = time.monotonic(), False

    def _watch(self) -> None:
        while not self._over.wait(CHECK_INTERVAL):
            now = time.monotonic()
            if not self._is_pinged:
                self._is_pinged = True
                self._seen = now
                try:
                    self._loop.call_soon_threadsafe(self._on_turn)
                except RuntimeError:
                    return  # the loop was closed
            elif now - self._seen > BLOCKED_AFTER and now - self._warned_at > REPEAT_WARNING_AFTER:
                self._warned_at = now
                self._warn(now - self._seen)
            if not self._is_pinged:
                self._warned_at = 0.0

    def _warn(self, blocked: float) -> None:
        frame = sys._current_frames().get(self._thread_id)
        where = "unknown code"
        if frame is not None:
            where = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        text = f"the event loop has been blocked for {blocked:.1f} s, in {where}; await, or use a sync handler"
        task = asyncio.current_task(self._loop)
        run = self._run_of(task) if task is not None else None
        if run is not None:
            run.log(text, "warning")
            log.warning("job %s (%s): %s", run.job_id, run.job_type, text)
        else:
            log.warning("%s", text)


IDLE_SECONDS = 30.0


class ThreadPool:
    """Runs each function in a thread that is free or new. A thread that is idle for 30 s ends."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free = 0
        self._made = 0

    def submit(self, function: Callable[[], None]) -> None:
        """Run a function that raises nothing, without waiting for a free thread."""
        with self._lock:
            start = self._free == 0
            if start:
                self._made += 1
            else:
                self._free -= 1
        self._work.put(function)
        if start:
            threading.Thread(target=self._serve, name=f"{self._name}-{self._made}", daemon=True).start()

    def close(self) -> None:
        """End the idle threads at once, and the others after their work."""
        with self._lock:
            idle, self._free = self._free, 0
        for _ in range(idle):
            self._work.put(None)

    def _serve(self) -> None:
        while True:
            try:
                function = self._work.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if self._free == 0:  # a submit has just reserved this thread
                        continue
                    self._free -= 1
                return
            if function is None:
                return
            try:
                function()
            except BaseException:
                log.exception("unexpected error in a worker thread")
            del function
            with self._lock:
                self._free += 1
