"""Run coroutines that never suspend, so that code written once as `async def` also serves blocking callers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from operator import attrgetter
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")


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


def other_form(store: T, make: Callable[[], T]) -> T:
    """Return the blocking form of an async store, or the reverse: one that is made at the first call, for all threads."""
    known: dict[str, T] = vars(store)
    return known.get("_other") or known.setdefault("_other", make())


def copy_with(store: T, **changes: Any) -> T:
    """Return another store object with the attributes of one, apart from these."""
    other = object.__new__(type(store))
    vars(other).update(vars(store), **changes)
    return other


class Method(Generic[P, T]):
    """What a type checker sees of a method that one of the functions below returns: its parameters and its result."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> Callable[Concatenate[Any, P], T]: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Callable[P, T]: ...

    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        """Return the function, or the bound method of an instance."""


def adapted(method: Callable[Concatenate[Any, P], T], adapt: Callable[[T], U]) -> Method[P, U]:
    """Return the method of the object in `_async`, with its parameters and docstring; `adapt` is called with its result."""
    target = attrgetter(f"_async.{method.__name__}")

    @wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return adapt(target(self)(*args, **kwargs))

    call.__doc__ = (method.__doc__ or "").replace("``async with", "``with")
    return call  # type: ignore[return-value]


def blocking(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Method[P, T]:
    """Return the blocking form of a method of the object in `_async`."""
    return adapted(method, run_sync)


def blocking_iterator(method: Callable[Concatenate[Any, P], AsyncIterator[T]]) -> Method[P, Iterator[T]]:
    """Return the blocking form of a method that returns an asynchronous iterator."""
    return adapted(method, iter_sync)


def delegated(method: Callable[Concatenate[Any, P], T], of: str) -> Method[P, T]:
    """Return the method of the object in attribute `of`, with its parameters and docstring."""
    target = attrgetter(f"{of}.{method.__name__}")

    @wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return target(self)(*args, **kwargs)

    return call  # type: ignore[return-value]
