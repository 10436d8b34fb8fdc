"""Handlers that are generators: what they yield is the output of their job, what they return its result."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import aclosing, closing
from typing import Any

from milepost.run.run import Run


def streamed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that passes each text that a generator yields to `run.output`.

    It returns what the generator returns; an async generator returns None. What `run.output` raises, such as
    JobCancelled, is raised at the `yield`, so that the generator has cleaned up when the handler ends.
    """
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream_async(run: Run, /, *args: Any, **kwargs: Any) -> None:
            async with aclosing(function(run, *args, **kwargs)) as texts:
                error: BaseException | None = None
                while True:
                    try:
                        text = await (anext(texts) if error is None else texts.athrow(error))
                    except StopAsyncIteration:
                        return
                    error = _output(run, text)

        return stream_async

    @functools.wraps(function)
    def stream(run: Run, /, *args: Any, **kwargs: Any) -> Any:
        with closing(function(run, *args, **kwargs)) as texts:
            error: BaseException | None = None
            while True:
                try:
                    text = next(texts) if error is None else texts.throw(error)
                except StopIteration as end:
                    return end.value
                error = _output(run, text)

    return stream


def _output(run: Run, text: Any) -> BaseException | None:
    """Output a text; return what that raised."""
    try:
        run.output(text)
    except BaseException as error:  # noqa: BLE001 - a stop too
        return error
    return None
