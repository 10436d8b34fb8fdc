"""Calls a function for many items, several at once, in threads or in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NamedTuple

from milepost.core.errors import InvalidInputError
from milepost.core.serialization import single_line
from milepost.run.crash_report import masked
from milepost.run.each import NAME_BYTES, Key, key_function
from milepost.run.loop_keys import LoopScope
from milepost.run.stages import LiveStage

if TYPE_CHECKING:
    from milepost.run.run import Run

MAX_DONE_KEYS = 100_000


class MapItem(NamedTuple):
    """An item, its key, and whether it is still to be processed."""

    item: Any
    key: str
    todo: bool


Settle = Callable[[MapItem, BaseException | None, Any], None]
"""Records the outcome and the result of one item, or raises its error."""


def map_items(
    items: Iterable[Any],
    key: Key,
    done: set[str],
    only: frozenset[str] | None,
    masks: tuple[str, ...],
    *,
    unique: bool,
) -> list[MapItem]:
    """Return the items with their keys, and whether each is to be processed."""
    read = key_function(key)
    work: list[MapItem] = []
    seen: set[str] = set()
    for position, item in enumerate(items):
        name = single_line(read(item), NAME_BYTES) if read is not None else str(position)
        if unique and name in seen:
            raise InvalidInputError(
                "key", f"two items have the key {name!r:.80}; each needs a key of its own (or give resume=False)"
            )
        seen.add(name)
        work.append(MapItem(item, name, name not in done and (only is None or masked(name, masks) in only)))
    return work


def map_threads(
    run: Run,
    stage: LiveStage,
    place: LoopScope,
    function: Callable[[Any], Any],
    work: list[MapItem],
    settle: Settle,
    concurrency: int,
    done: set[str],
    results: list[Any],
) -> list[Any]:
    """Call the function in this thread, or in a pool of `concurrency` threads."""
    todo = [index for index, task in enumerate(work) if task.todo]

    def call(task: MapItem) -> Any:
        with place.item(task.key, done):
            return function(task.item)

    with stage:
        if concurrency <= 1:
            for index in todo:
                error: BaseException | None = None
                try:
                    results[index] = call(work[index])
                except Exception as caught:  # noqa: BLE001 - whatever the user's function raises is settled below
                    error = caught
                settle(work[index], error, results[index])
            return results
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix=f"milepost-map-{run.job_id[:8]}")
        try:
            waiting: dict[Future[Any], int] = {}
            queue = iter(todo)
            while True:
                while len(waiting) < concurrency and (index := next(queue, -1)) >= 0:
                    waiting[pool.submit(copy_context().run, call, work[index])] = index
                if not waiting:
                    return results
                ready, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                run.check()
                for future in ready:
                    index = waiting.pop(future)
                    failed = future.exception()
                    results[index] = None if failed is not None else future.result()
                    settle(work[index], failed, results[index])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


async def map_async(
    run: Run,
    stage: LiveStage,
    place: LoopScope,
    function: Callable[[Any], Awaitable[Any]],
    work: list[MapItem],
    settle: Settle,
    concurrency: int,
    done: set[str],
    results: list[Any],
) -> list[Any]:
    """Await the function for `concurrency` items at once."""
    queue = iter([index for index, task in enumerate(work) if task.todo])

    async def call_next() -> None:
        for index in queue:
            error: BaseException | None = None
            try:
                with place.item(work[index].key, done):
                    results[index] = await function(work[index].item)
            except Exception as caught:  # noqa: BLE001 - whatever the user's function raises is settled below
                error = caught
            settle(work[index], error, results[index])

    with stage:
        tasks = [asyncio.ensure_future(call_next()) for _ in range(max(1, concurrency))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return results
