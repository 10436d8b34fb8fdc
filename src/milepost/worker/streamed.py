"""Handlers that are generators: what they yield is the output of their job, what they return its result."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from milepost.run.run import Run


def streamed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a handler that passes each text that a generator yields to `run.output`.

    It returns what the generator returns; an async generator returns None.
    """
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream_async(run: Run, /, *args: Any, **kwargs: Any) -> None:
            async for text in function(run, *args, **kwargs):
                run.output(text)

        return stream_async

    @functools.wraps(function)
    def stream(run: Run, /, *args: Any, **kwargs: Any) -> Any:
        texts = function(run, *args, **kwargs)
        while True:
            try:
                text = next(texts)
            except StopIteration as end:
                return end.value
            run.output(text)

    return stream
