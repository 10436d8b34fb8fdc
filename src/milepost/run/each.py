"""The tracked loop: one iterator for progress, cancellation points, ETA samples and the resume cursor.

A step of the loop updates two cells that the heartbeat reads, and checks whether a list is empty.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any, Generic, TypeVar

from milepost.core.errors import InvalidInputError, RunStop
from milepost.run.cursor import Cursor
from milepost.run.item_content import NOTHING
from milepost.run.items import RepeatedItems

T = TypeVar("T")
Key = str | Callable[[Any], Any] | None
NAME_BYTES = 200
"""The length of the name of an item in the ledger."""


def key_function(key: Key) -> Callable[[Any], Any] | None:
    """Return the function of a key: an attribute or dict key by its name, or the function itself."""
    if key is None or callable(key):
        return key

    def read(item: Any) -> Any:
        return item[key] if isinstance(item, dict) else getattr(item, key)

    return read


def length_of(items: object) -> int | None:
    """Return how many items there are, or None if that is unknown; data loaders may have a length that they cannot tell."""
    try:
        return len(items) if isinstance(items, Sized) else None
    except (TypeError, AttributeError, NotImplementedError, OverflowError):
        return None


class Each(Generic[T]):
    """The iterable that `run.each` returns, for one ``for`` or ``async for``."""

    def __init__(
        self,
        items: Iterable[T] | AsyncIterable[T],
        *,
        key: Key,
        batch: int | None,
        stops: list[RunStop],
        cursor: Cursor | None,
        total: int | None,
        only: RepeatedItems | None,
        name_of: Callable[[Any], str],
        begin: Callable[[Each[Any]], None],
        end: Callable[[Each[Any], bool], None],
        passed: Callable[[int], None],
    ) -> None:
        if batch is not None and (isinstance(batch, bool) or batch < 1):
            raise InvalidInputError("batch", f"{batch!r:.40} must be a whole number of at least 1")
        self.key = key_function(key)
        self._items: Any = items
        self._batch = batch
        self._stops = stops
        self._cursor = cursor
        self._total = total
        self._only = only
        self._name_of = name_of
        self._begin = begin
        self._end = end
        self._passed = passed
        self._mark: tuple[int, Any, Any] | None = None
        """The position of an asynchronous loop, for `leave_at`: after a `break` its generator is closed only later."""
        start = cursor.start if cursor is not None else 0
        self.count: Callable[[], int] = lambda: start
        self.last: Callable[[], Any] = lambda: None

    def _take(self) -> Any:
        """Return the items. Those that can be iterated once are kept no longer: a generator whose loop is left is closed."""
        items = self._items
        if items is NOTHING:
            raise InvalidInputError(
                "items", "were taken by an earlier loop over this run.each; call run.each once more"
            )
        if isinstance(items, Iterator | AsyncIterator):
            self._items = NOTHING
        return items

    def __iter__(self) -> Iterator[Any]:
        taken = self._take()
        if not isinstance(taken, Iterable):  # some, such as Dask's `as_completed`, are both
            if isinstance(taken, AsyncIterable):
                raise InvalidInputError("items", "are asynchronous; use `async for`")
            raise InvalidInputError("items", f"{type(taken).__name__} cannot be iterated; use a list or a generator")
        items = iter(taken)
        cursor = self._cursor
        if cursor is None:
            if self._only is not None:
                items = self._chosen(items, self._only)
            self._begin(self)
            return self._batches(None, items, self._batch) if self._batch else self._steps(items)
        while cursor.is_behind:
            item = next(items, NOTHING)
            if item is NOTHING:
                raise cursor.exhausted()
            cursor.pass_over(item)
        self._enter(cursor)
        if self._batch:
            return self._batches(cursor, items, self._batch)
        return self._steps_with(cursor, items)

    def _enter(self, cursor: Cursor) -> None:
        cursor.enter()
        if cursor.kept:
            self._passed(cursor.position)
        self._begin(self)

    def _steps(self, items: Iterator[T]) -> Iterator[T]:
        """Yield items one by one. The hot loop: it does only what each item needs."""
        n = 0
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

    def _steps_with(self, cursor: Cursor, items: Iterator[T]) -> Iterator[T]:
        """Yield items one by one, and take a cursor between two of them when one is requested, or the run has to stop."""
        n = cursor.position
        last: Any = None
        item: Any = NOTHING
        stops, wanted = self._stops, cursor.wanted
        self.count = lambda: n
        self.last = lambda: last
        finished = False
        try:
            if stops:
                raise stops[0]
            item = next(items, NOTHING)
            if item is not NOTHING:
                cursor.stand_at(n, item)
                items = cursor.holding(items, item)
            while item is not NOTHING:
                yield item
                last = item
                n += 1
                if not wanted:
                    for item in items:
                        yield item
                        last = item
                        n += 1
                        if wanted:
                            break
                    else:
                        break
                wanted.clear()
                item = NOTHING
                cursor.take(n, last)
                if stops:
                    raise stops[0]
                item = next(items, NOTHING)
                if item is not NOTHING:
                    cursor.stand_at(n, item)
            cursor.take(n, last, end=True)
            finished = True
        finally:
            if not finished:
                cursor.leave_at(n, last, item)
            self._end(self, finished)

    def _batches(self, cursor: Cursor | None, items: Iterator[T], size: int) -> Iterator[list[T]]:
        n = cursor.position if cursor is not None else 0
        last: Any = None
        item: Any = NOTHING
        stops = self._stops
        self.count = lambda: n
        self.last = lambda: last
        finished, is_due = False, True
        try:
            while not stops and (batch := list(islice(items, size))):
                item = batch[0]
                if cursor is not None and is_due:
                    cursor.stand_at(n, item)
                    is_due = False
                if cursor is not None:
                    cursor.hold(item)
                yield batch
                last, item = batch[-1], NOTHING
                n += len(batch)
                if cursor is not None and (cursor.wanted or stops):
                    cursor.wanted.clear()
                    cursor.take(n, last)
                    is_due = True
            if stops:
                raise stops[0]
            if cursor is not None:
                cursor.take(n, last, end=True)
            finished = True
        finally:
            if cursor is not None and not finished:
                cursor.leave_at(n, last, item)
            self._end(self, finished)

    async def __aiter__(self) -> AsyncIterator[Any]:
        cursor = self._cursor
        if cursor is None and not isinstance(self._items, AsyncIterable):
            for item in iter(self):
                yield item
            return
        taken = self._take()
        items = aiter(taken) if isinstance(taken, AsyncIterable) else _awaited(taken)
        if cursor is None:
            if self._only is not None:
                items = self._achosen(items, self._only)
            self._begin(self)
        else:
            while cursor.is_behind:
                item = await anext(items, NOTHING)
                if item is NOTHING:
                    raise cursor.exhausted()
                cursor.pass_over(item)
            self._enter(cursor)
        n = cursor.position if cursor is not None else 0
        last: Any = None
        following: Any = NOTHING
        stops = self._stops
        self.count = lambda: n
        self.last = lambda: last
        finished, is_due = False, True
        try:
            if stops:
                raise stops[0]
            async for group in self._groups(items):
                following = group[0]
                if cursor is not None:
                    if is_due:
                        cursor.stand_at(n, following)
                        is_due = False
                    cursor.hold(following)
                    self._mark = (n, last, following)
                yield group if self._batch else group[0]
                last, following = group[-1], NOTHING
                n += len(group)
                if cursor is not None and (cursor.wanted or stops):
                    cursor.wanted.clear()
                    cursor.take(n, last)
                    is_due = True
                if stops:
                    raise stops[0]
            if cursor is not None:
                cursor.take(n, last, end=True)
            finished = True
        finally:
            self._mark = None
            if cursor is not None and not finished:
                cursor.leave_at(n, last, following)
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

    def _chosen(self, items: Iterator[T], only: RepeatedItems) -> Iterator[T]:
        """Yield only the items that failed before."""
        for position, item in enumerate(items):
            if self._is_chosen(item, position, only):
                yield item

    async def _achosen(self, items: AsyncIterator[T], only: RepeatedItems) -> AsyncIterator[T]:
        position = 0
        async for item in items:
            if self._is_chosen(item, position, only):
                yield item
            position += 1

    def _is_chosen(self, item: T, position: int, only: RepeatedItems) -> bool:
        """Return whether an item is one of those that failed, by the name that `run.item` gave it.

        Without a key, that is its text, or its position unless the text may be taken for one.
        """
        if self.key is not None:
            return only.take(self._name_of(self.key(item)))
        return only.take(self._name_of(item)) or (not isinstance(item, str | int) and only.take(str(position)))

    def cursor(self) -> dict[str, Any]:
        """Return where the next attempt starts, or how far a plain loop is.

        A resumable loop is asked for its latest position, which it takes before its next item.
        """
        if self._only is not None:
            return {}
        if self._cursor is None:
            return reached(self.count(), self._total)
        if (mark := self._mark) is not None:
            self._cursor.leave_at(*mark)
        self._cursor.ask()
        return self._cursor.taken if self._cursor.taken.get("n") else {}

    def notify_stop(self) -> None:
        """Let a resumable loop check for the stop before its next item."""
        if self._cursor is not None:
            self._cursor.wanted.append(True)

    def is_passed(self, cursor: Mapping[str, Any]) -> Callable[[Any], bool]:
        """Return which items the next attempt skips."""
        n = cursor.get("n", 0)
        return lambda at: at < n

    def name_of_last(self, last: Any) -> Any:
        """Return the key of the last finished item, or its position if the key cannot be read."""
        try:
            return self.key(last) if self.key is not None else self.count()
        except Exception:  # noqa: BLE001 - the key is the user's code, and this is asked for a failure too
            return self.count()


async def _awaited(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


def reached(n: int, total: int | None) -> dict[str, Any]:
    """Return the cursor of a loop that starts again: how far it was, for the log only."""
    return {"reached": n} if total is None else {"reached": n, "of": total}
