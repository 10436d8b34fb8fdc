"""Event loops that know which threads the code of a run has started, so that its end can wait for them.

A task that awaits `asyncio.to_thread` is cancelled at once while its thread continues. Only the future of the thread
tells when the code has stopped. Workers and their child processes use these loops. In the loop of a host, such as a web
server, its owner can make `RunExecutor` the default executor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from milepost.run.context import current

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
