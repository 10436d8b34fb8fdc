"""The tracked loop: one iterator that is progress, resume cursor, cancel point and sample of the rate at once.

Owns how items are counted and where the next attempt begins; knows no store. A step of the loop adds to two cells that
the pulse reads, and looks whether a list is empty.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Generic, TypeVar

from milepost.core.encoding import one_line, to_json
from milepost.core.errors import InvalidInput, Stop

T = TypeVar("T")
Key = str | Callable[[Any], Any] | None
NAME_BYTES = 200
"""The length of the name of an item, in the ledger of those that failed."""


def key_function(key: Key) -> Callable[[Any], Any] | None:
    """The function of a key: an attribute or a dict key by its name, or the function itself."""
    if key is None or callable(key):
        return key

    def read(item: Any) -> Any:
        return item[key] if isinstance(item, dict) else getattr(item, key)

    return read


class Each(Generic[T]):
    """What `run.each` gives: usable with ``for`` and ``async for``, once. Made by Run."""

    def __init__(
        self,
        items: Iterable[T] | AsyncIterable[T],
        *,
        key: Key,
        batch: int | None,
        stops: list[Stop],
        resume: dict[str, Any] | None,
        only: frozenset[str] | None,
        begin: Callable[[Each[Any]], None],
        end: Callable[[Each[Any], bool], None],
    ) -> None:
        if batch is not None and (isinstance(batch, bool) or batch < 1):
            raise InvalidInput("batch", f"{batch!r:.40} must be a whole number of at least 1")
        self.key = key_function(key)
        self._items = items
        self._batch = batch
        self._stops = stops
        self._resume = resume or {}
        self._only = only
        self._begin = begin
        self._end = end
        self.count: Callable[[], int] = lambda: int(self._resume.get("n", 0))
        self.last: Callable[[], Any] = lambda: None
        self.position = 0
        self.known: dict[str, Any] = dict(self._resume)
        """The last cursor that could be made."""

    def __iter__(self) -> Iterator[Any]:
        if not isinstance(self._items, Iterable):  # some, such as Dask's `as_completed`, are both
            raise InvalidInput("items", "are asynchronous; use `async for`")
        items = iter(self._items)
        if self._only is not None:
            items = self._chosen(items, self._only)
        else:
            self._skip(items)
        self._begin(self)
        return self._batches(items, self._batch) if self._batch else self._steps(items)

    def _steps(self, items: Iterator[T]) -> Iterator[T]:
        """Hand out items one by one. The hot loop: nothing here that is not needed for each item."""
        n = int(self._resume.get("n", 0))
        last: Any = None
        stops = self._stops
        self.count = lambda: n
        self.last = lambda: last
        finished = False
        try:
            if stops:
                raise stops[0]
            for item in items:
                yield item
                last = item
                n += 1
                if stops:
                    raise stops[0]
            finished = True
        finally:
            self._end(self, finished)

    def _batches(self, items: Iterator[T], size: int) -> Iterator[list[T]]:
        n = int(self._resume.get("n", 0))
        last: Any = None
        stops = self._stops
        self.count = lambda: n
        self.last = lambda: last
        finished = False
        try:
            while not stops and (batch := list(islice(items, size))):
                yield batch
                last = batch[-1]
                n += len(batch)
            if stops:
                raise stops[0]
            finished = True
        finally:
            self._end(self, finished)

    async def __aiter__(self) -> AsyncIterator[Any]:
        if not isinstance(self._items, AsyncIterable):
            for item in iter(self):
                yield item
            return
        n, last, stops = int(self._resume.get("n", 0)), None, self._stops
        self.count = lambda: n
        self.last = lambda: last
        self._begin(self)
        finished = False
        try:
            async for group in self._groups(self._remaining(self._items)):
                n = max(n, self.position)
                yield group if self._batch else group[0]
                last = group[-1]
                n += len(group)
                if stops:
                    raise stops[0]
            finished = True
        finally:
            self._end(self, finished)

    async def _groups(self, items: AsyncIterator[T]) -> AsyncIterator[list[T]]:
        group: list[T] = []
        async for item in items:
            group.append(item)
            if len(group) == (self._batch or 1):
                yield group
                group = []
        if group:
            yield group

    async def _remaining(self, items: AsyncIterable[T]) -> AsyncIterator[T]:
        """What the last attempt left of asynchronous items; or only those that are to be done again."""
        after, position = self._resume.get("key"), int(self._resume.get("n", 0))
        found = not self._resume or (self.key is not None and after is None)
        index = 0
        async for item in items:
            if self._only is not None:
                if self._is_chosen(item, index, self._only):
                    yield item
            elif found:
                yield item
            else:
                self.position = index + 1
                found = _plain_key(self.key(item)) == after if self.key is not None else index + 1 >= position
            index += 1
        if not found and self._only is None:
            raise self._gone(after)

    def _skip(self, items: Iterator[T]) -> None:
        """Go to where the last attempt came."""
        if not self._resume:
            return
        if self.key is None:
            self.position = position = int(self._resume.get("n", 0))
            next(islice(items, position, position), None)
            return
        after = self._resume.get("key")
        if after is None:
            return
        for item in items:
            self.position += 1
            if _plain_key(self.key(item)) == after:
                return
        raise self._gone(after)

    def _gone(self, after: Any) -> InvalidInput:
        return InvalidInput(
            "key", f"the last attempt came to item {after!r:.80}, which is not among the items any more; "
            "give the same items in the same order, or start the job anew"
        )  # fmt: skip

    def _chosen(self, items: Iterator[T], only: frozenset[str]) -> Iterator[T]:
        """Only the items that are to be done again."""
        for position, item in enumerate(items):
            if self._is_chosen(item, position, only):
                yield item

    def _is_chosen(self, item: T, position: int, only: frozenset[str]) -> bool:
        """Whether an item is one of those that failed, by the name that `run.item` has given it.

        Without a key that is its text, or the position that its loop has counted, unless its text may be taken for one.
        """
        if self.key is not None:
            return one_line(self.key(item), NAME_BYTES) in only
        return one_line(item, NAME_BYTES) in only or (not isinstance(item, str | int) and str(position) in only)

    def cursor(self) -> dict[str, Any]:
        """Where the next attempt begins: after so many items, after the item of this key."""
        n = self.count()
        if self.key is None or n == int(self._resume.get("n", 0)):
            return {**self._resume, "n": n} if n else {}
        self.known = {"n": n, "key": _plain_key(self.key(self.last()))}
        return self.known

    def name_of_last(self, last: Any) -> Any:
        """What the item that was finished last is called: by its key, and by its position where that cannot be read."""
        try:
            return self.key(last) if self.key is not None else self.count()
        except Exception:  # noqa: BLE001 - the key is the user's code, and this is asked for a failure too
            return self.count()


def _plain_key(key: Any) -> Any:
    """A key in the form in which a cursor keeps it."""
    if isinstance(key, str | int) or key is None:
        return key
    to_json(key, "key", 1024)
    return key if isinstance(key, float) else str(key)
