"""The loops of a run: `each` with its state, `map`, and the guard around one item."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from milepost.run.crash_report import masked_line
from milepost.run.cursor import current_loop
from milepost.run.each import NAME_BYTES, Each, Key, key_function
from milepost.run.items import TrackedItem
from milepost.run.loops import begin_each, recorder
from milepost.run.map import begin_map
from milepost.run.state import State, StateBinding

if TYPE_CHECKING:
    from milepost.run.run import Run

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


class LoopMixin:
    """Adds `each`, `map`, `state` and `item` to a Run."""

    def each(
        self,
        items: Iterable[T] | AsyncIterable[T],
        *,
        stage: str | None = None,
        key: Key = None,
        batch: int | None = None,
        total: int | None = None,
        unit: str = "item",
        weight: float | None = None,
        resume: bool = False,
        state: object | None = None,
    ) -> Each[T]:
        """Iterate over items with progress, cancellation points and ETA samples, with ``for`` or ``async for``.

        Each attempt starts from the first item, so that counters and lists in the code are right. With `state` (made by
        `run.state`) the next attempt continues, and the state is as it was at that item. With ``resume=True`` it
        continues after the last finished item. Use it if the work on an item is durable and may be done twice: the item
        at the interruption is.

        A resumable loop needs the same items in the same order, or it raises InputChangedError. `key` (an attribute, a
        dict key or a function) names an item; without it the position does. A second resumable loop of a run needs a
        `stage` of another name. The log says what was skipped, or what starting again costs. Not together with
        `checkpoint`, which keeps a position too.

        `batch` yields lists. The loop counts into the open stage, or into a stage of its own if `stage` names one.
        """
        return begin_each(
            cast("Run", self), items, stage=stage, key=key, batch=batch, total=total, unit=unit, weight=weight, resume=resume,
            state=state,
        )  # fmt: skip

    @overload
    def state(self, kind: None = None, /, *, version: int = 1, **values: Any) -> State: ...

    @overload
    def state(self, kind: type[S], /, *, version: int = 1, **values: Any) -> S: ...

    def state(self, kind: Any = None, /, *, version: int = 1, **values: Any) -> Any:
        """Return the state of a loop: ``state = run.state(words=0)``, then ``run.each(items, state=state)``.

        Its values are attributes, and travel with the cursor of the loop in one write. They are restored when the loop
        is entered, so code before that sees the initial values. They are str, int, float, bool, None, lists, and dicts
        with str keys, up to 256 KiB of JSON; other types are declared: ``run.state(Totals)`` returns a dataclass, a
        TypedDict or a pydantic model with sets, tuples, Decimal, datetime. Only the loop's own thread may change them.
        With another `version` than that of the last attempt the loop starts again.
        """
        binding = StateBinding.make(kind, version, values)
        cast("Run", self)._loops.states.append(binding)
        return binding.target

    def item(self, item: Any, key: Key = None) -> TrackedItem:
        """Guard the work on one item: an Exception is recorded as a failed item and the loop continues.

        The item is named by `key`, else by that of the loop. In a loop with a `key` this may be given the name itself.
        """
        run = cast("Run", self)
        name = masked_line(_named(run, item, key), run._secret_values, NAME_BYTES)
        place = current_loop(run._loops.places)
        return TrackedItem(name, recorder(run, place, place.at() if place is not None else None))

    @overload  # a function that returns a coroutine fits the later overloads too; the first that fits is chosen
    def map(  # type: ignore[overload-overlap]
        self, function: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], *, key: Key = None, stage: str | None = None,
        errors: Literal["raise"] = "raise", concurrency: int = 1, unit: str = "item",
        keep: Literal[True] = True, resume: Literal[False] | None = None,
    ) -> Coroutine[Any, Any, list[R]]: ...  # fmt: skip

    @overload
    def map(  # type: ignore[overload-overlap]
        self, function: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], *, key: Key = None, stage: str | None = None,
        errors: Literal["raise", "collect"] = "raise", concurrency: int = 1, unit: str = "item",
        keep: bool = True, resume: bool | None = None,
    ) -> Coroutine[Any, Any, list[R | None]]: ...  # fmt: skip

    @overload
    def map(
        self, function: Callable[[T], R], items: Iterable[T], *, key: Key = None, stage: str | None = None,
        errors: Literal["raise"] = "raise", concurrency: int = 1, unit: str = "item",
        keep: Literal[True] = True, resume: Literal[False] | None = None,
    ) -> list[R]: ...  # fmt: skip

    @overload
    def map(
        self, function: Callable[[T], R], items: Iterable[T], *, key: Key = None, stage: str | None = None,
        errors: Literal["raise", "collect"] = "raise", concurrency: int = 1, unit: str = "item",
        keep: bool = True, resume: bool | None = None,
    ) -> list[R | None]: ...  # fmt: skip

    def map(
        self,
        function: Callable[[T], Any],
        items: Iterable[T],
        *,
        key: Key = None,
        stage: str | None = None,
        errors: Literal["raise", "collect"] = "raise",
        concurrency: int = 1,
        unit: str = "item",
        keep: bool = True,
        resume: bool | None = None,
    ) -> Any:
        """Call a function for each item, tracked, and return the list of results in order.

        Await it for an async function. ``errors="collect"`` records a failed item and puts None into the list; the next
        attempt tries it again. The results of finished items are kept, up to 64 KiB each and 256 MiB per job. So the
        next attempt processes the other items and returns all results. They are plain JSON, or of the declared type
        (``-> set[str]``).

        ``keep=False`` (or ``resume=True``) is for a function whose effect is durable: finished items are skipped, with
        None in the list. ``resume=False`` keeps nothing: each attempt processes all items. `key` names an item, so that
        items may be added; without it the items must be the same, in the same order. Not together with a `checkpoint`
        outside of a loop.
        """
        return begin_map(
            cast("Run", self),
            function,
            items,
            key=key,
            stage=stage,
            collect=errors == "collect",
            concurrency=concurrency,
            unit=unit,
            keep=keep,
            resume=resume,
        )


def _named(run: Run, item: Any, key: Key) -> Any:
    """Return the name of an item."""
    read = key_function(key)
    if read is not None:
        return read(item)
    read = next((loop.key for loop in reversed(list(run._loops.each.values())) if loop.key is not None), None)
    if read is None:
        return item
    try:
        return read(item)
    except (AttributeError, LookupError, TypeError):
        if isinstance(item, str | int):  # the name itself, as in `run.item(doc["id"])`
            return item
        raise
