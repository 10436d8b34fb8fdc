"""Makes tracked loops and steps slow enough to be interrupted, and lets them fail when the model is unavailable."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator, Sized
from typing import Any

from milepost.run.async_run import AsyncRun
from milepost.run.run import Run
from tests.truth.work import SECONDS, aslow, slow

LOOP_SECONDS = 0.15
"""How much longer a loop takes."""
STEP_SECONDS = 0.03


def apply() -> None:
    """Put a pause before each item of a tracked loop, and behind each checkpoint and step."""
    each, checkpoint, step, async_step = Run.each, Run.checkpoint, Run.step, AsyncRun.step

    def slow_each(self: Run, items: Any, **how: Any) -> Any:
        pause = LOOP_SECONDS / max(len(items), 1) if isinstance(items, Sized) else SECONDS
        return _SlowLoop(each(self, items, **how), pause)

    def slow_checkpoint(self: Run, value: Any) -> None:
        checkpoint(self, value)
        slow(None)

    def slow_step(self: Run, key: str, function: Any, *arguments: Any, **how: Any) -> Any:
        value = step(self, key, function, *arguments, **how)
        return value if inspect.iscoroutine(value) else slow(value, STEP_SECONDS)

    async def slow_async_step(self: AsyncRun, key: str, function: Any, *arguments: Any, **how: Any) -> Any:
        return await aslow(await async_step(self, key, function, *arguments, **how), STEP_SECONDS)

    Run.each = slow_each  # type: ignore[method-assign] # that is what it is for
    Run.checkpoint = slow_checkpoint  # type: ignore[method-assign] # likewise
    Run.step = slow_step  # type: ignore[method-assign,assignment] # likewise
    AsyncRun.step = slow_async_step  # type: ignore[method-assign,assignment] # likewise


class _SlowLoop:
    """A tracked loop with a pause before the work on each item."""

    def __init__(self, loop: Any, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds

    def __iter__(self) -> Iterator[Any]:
        return (slow(item, self._seconds) for item in self._loop)

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for item in self._loop:
            yield await aslow(item, self._seconds)
