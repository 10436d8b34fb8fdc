"""Run coroutines that never suspend, so that code written once as `async def` also serves blocking callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of a blocking store and return its result. RuntimeError if it suspends: the store is not blocking."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("this store needs an event loop; use AsyncJobManager, or a blocking store")


def iter_sync(iterator: AsyncIterator[T]) -> Iterator[T]:
    """Iterate over an asynchronous iterator of a blocking store."""
    try:
        while True:
            try:
                item = run_sync(_next(iterator))
            except StopAsyncIteration:
                return
            yield item
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            run_sync(close())


async def _next(iterator: AsyncIterator[T]) -> T:
    return await iterator.__anext__()
