"""Stepping coroutines that never suspend, so that what is written once as `async def` serves blocking callers too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine over a blocking port to its end. RuntimeError when it suspends: then its port is not blocking."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("this store needs an event loop; use the asynchronous manager, or a blocking store")


def drive_each(iterator: AsyncIterator[T]) -> Iterator[T]:
    """Run an asynchronous iterator over a blocking port, item by item."""
    try:
        while True:
            try:
                item = drive(_next(iterator))
            except StopAsyncIteration:
                return
            yield item
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            drive(close())


async def _next(iterator: AsyncIterator[T]) -> T:
    return await iterator.__anext__()
