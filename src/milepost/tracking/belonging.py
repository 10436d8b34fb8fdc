"""Which run the code that runs here belongs to. Owns the answer, and how it follows work into threads; knows no store.

A context variable carries it through calls, tasks and `asyncio.to_thread`. Plain threads and executors do not copy the
context, so they are taught to once, when the first run begins: a thread belongs to the run that started it, and a call
in a `ThreadPoolExecutor` to the run that submitted it, whoever made the pool. Outside of runs that changes nothing.
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
    from milepost.tracking.run import Run


class _Nobody:
    """Stands for no run at all, where a thread would else be taken for one's."""

    captures = None


_here: ContextVar[Run | _Nobody | None] = ContextVar("milepost_run", default=None)
_whole: Run | None = None
_taught = False
_MARK = "_milepost_run"


def enter(run: Run) -> Token[Any]:
    """From here on the code of this context belongs to the run."""
    _teach()
    return _here.set(run)


def leave(token: Token[Any]) -> None:
    """What was before `enter` holds again."""
    try:
        _here.reset(token)
    except ValueError:
        pass  # the block ends in another context than it began in; the run is over, so `current` passes it over


def own_process(run: Run | None) -> None:
    """All that this process does belongs to one run: a child of a worker that runs one job at a time."""
    global _whole
    _whole = run


def current() -> Run | None:
    """The run that the caller belongs to, while it is captured; None outside of any."""
    run = _here.get()
    if run is None:
        run = getattr(threading.current_thread(), _MARK, None) or _whole
    return run if run is not None and run.captures is not None else None


def _teach() -> None:
    """Let threads and executors know whose work they do. Stays: others may have wrapped the same methods since."""
    global _taught
    if _taught:
        return
    _taught = True
    start: Callable[[threading.Thread], None] = threading.Thread.start
    submit: Callable[..., Future[Any]] = ThreadPoolExecutor.submit

    @functools.wraps(start)
    def marked_start(self: threading.Thread) -> None:
        run = current()
        if run is not None:
            setattr(self, _MARK, run)
        start(self)

    @functools.wraps(submit)
    def carrying_submit(self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        run = current()
        if run is None:
            return submit(self, fn, *args, **kwargs)
        token = _here.set(_Nobody())  # a thread that the pool starts now serves others later
        try:
            return submit(self, _for_run, run, fn, *args, **kwargs)
        finally:
            _here.reset(token)

    threading.Thread.start = marked_start  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = carrying_submit  # type: ignore[method-assign, assignment]


def _for_run(run: Run, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    token = _here.set(run)
    try:
        return function(*args, **kwargs)
    finally:
        _here.reset(token)


def _after_fork() -> None:
    """A copy of a run reports nothing: its pulse stayed behind."""
    _here.set(None)
    own_process(None)
    if hasattr(threading.current_thread(), _MARK):
        delattr(threading.current_thread(), _MARK)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
