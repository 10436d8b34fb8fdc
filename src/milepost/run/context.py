"""The run that the current code belongs to, and the stage that it is in.

Context variables carry them through calls, tasks and `asyncio.to_thread`. Plain threads and executors do not copy the
context. With ``capture="threads"`` the methods that start them are wrapped, and carry the run.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from milepost.run.run import Run
    from milepost.run.stages import LiveStage


class _NoRun:
    """Marks code that belongs to no run although its thread may carry one."""

    _captures = None


_current: ContextVar[Run | _NoRun | None] = ContextVar("milepost_run", default=None)
innermost_stage: ContextVar[LiveStage | None] = ContextVar("milepost_stage", default=None)
"""The last stage that this context has opened or inherited, which may have ended since, and may be one of an earlier run."""
_process_run: Run | None = None
_threads_patched = False
_MARK = "_milepost_run"


ThreadAndTask = tuple[int, "asyncio.Task[object] | None"]
"""The thread and the task in which the code of a run was started."""


def thread_and_task() -> ThreadAndTask:
    """Return the thread and the task of the caller."""
    import asyncio  # here, since the command line imports this module and needs no event loop

    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident(), task


def enter(run: Run) -> Token[Any]:
    """Let the code of this context belong to the run, until `leave`."""
    return _current.set(run)


def leave(token: Token[Any]) -> None:
    """Restore what was before `enter`."""
    try:
        _current.reset(token)
    except ValueError:
        pass  # the block ended in another context than it started in; the run has ended, so `current` ignores it


def is_carried(run: Run) -> bool:
    """Return whether this context belongs to the run; that of a plain thread does not."""
    return _current.get() is run


def set_process_run(run: Run | None) -> None:
    """Let all code of this process belong to one run, as in a child process of a worker."""
    global _process_run
    _process_run = run


def current() -> Run | None:
    """Return the run that the caller belongs to while it is active, or None."""
    run = _current.get()
    if run is None:
        run = (_threads_patched and getattr(threading.current_thread(), _MARK, None)) or _process_run
    return run if run is not None and run._captures is not None else None


def patch_threads() -> None:
    """Let a thread belong to the run that started it, and a call in an executor to the run that submitted it.

    Wraps `Thread.start` and `ThreadPoolExecutor.submit`. Never undone, because others may have wrapped them since.
    """
    global _threads_patched
    if _threads_patched:
        return
    _threads_patched = True
    start: Callable[[threading.Thread], None] = threading.Thread.start
    submit: Callable[..., Future[Any]] = ThreadPoolExecutor.submit

    @functools.wraps(start)
    def marked_start(self: threading.Thread) -> None:
        run = current()
        if run is not None and "threads" in (run._captures or ()):
            setattr(self, _MARK, run)
        start(self)

    @functools.wraps(submit)
    def carrying_submit(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        run = current()
        if run is None or "threads" not in (run._captures or ()):
            return submit(self, fn, *args, **kwargs)
        token = _current.set(_NoRun())  # a thread that the pool starts now also serves other runs later
        try:
            return submit(self, _call_in_run, run, innermost_stage.get(), fn, *args, **kwargs)
        finally:
            _current.reset(token)

    threading.Thread.start = marked_start  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = carrying_submit  # type: ignore[method-assign, assignment]


def _call_in_run(run: Run, stage: LiveStage | None, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    token = _current.set(run)
    innermost_stage.set(stage)
    try:
        return function(*args, **kwargs)
    finally:
        _current.reset(token)


def _after_fork() -> None:
    """Forget the run in a forked process, which has no heartbeat for it."""
    _current.set(None)
    set_process_run(None)
    if hasattr(threading.current_thread(), _MARK):
        delattr(threading.current_thread(), _MARK)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
