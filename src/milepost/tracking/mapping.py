"""`run.map`: a function over items, several at once, out of order, with the set of what is done. Knows no store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from milepost.core.encoding import one_line
from milepost.tracking.each import NAME_BYTES, Key, key_function
from milepost.tracking.nesting import Place
from milepost.tracking.stages import LiveStage

if TYPE_CHECKING:
    from milepost.tracking.run import Run

DONE_KEYS_MAX = 100_000


class Work(NamedTuple):
    """One item, its key, and whether it is still to be done."""

    item: Any
    key: str
    todo: bool


def map_items(items: Iterable[Any], key: Key, done: set[str], only: frozenset[str] | None) -> list[Work]:
    """The items with their keys; those done before, or not asked for, are not to be done."""
    read = key_function(key)
    work = []
    for position, item in enumerate(items):
        name = one_line(read(item), NAME_BYTES) if read is not None else str(position)
        work.append(Work(item, name, name not in done and (only is None or name in only)))
    return work


def _settle(run: Run, stage: LiveStage, task: Work, error: BaseException | None, collect: bool, done: set[str]) -> None:
    """Write down how one item went; raise its error unless errors are collected."""
    if error is not None and not (collect and isinstance(error, Exception)):
        raise error
    run.ledger.record(task.key, error)
    if error is None and len(done) < DONE_KEYS_MAX:
        done.add(task.key)
    stage.advance()


def map_threads(
    run: Run,
    stage: LiveStage,
    place: Place,
    function: Callable[[Any], Any],
    work: list[Work],
    collect: bool,
    concurrency: int,
    done: set[str],
) -> list[Any]:
    """Call the function in this thread, or in a pool of `concurrency` threads."""
    results: list[Any] = [None] * len(work)
    todo = [index for index, task in enumerate(work) if task.todo]

    def call(task: Work) -> Any:
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
                _settle(run, stage, work[index], error, collect, done)
            return results
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix=f"milepost-map-{run.job_id[:8]}")
        try:
            waiting: dict[Future[Any], int] = {}
            queue = iter(todo)
            while True:
                while len(waiting) < concurrency and (index := next(queue, -1)) >= 0:
                    waiting[pool.submit(call, work[index])] = index
                if not waiting:
                    return results
                ready, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                run.check()
                for future in ready:
                    index = waiting.pop(future)
                    failed = future.exception()
                    results[index] = None if failed is not None else future.result()
                    _settle(run, stage, work[index], failed, collect, done)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


async def amap(
    run: Run,
    stage: LiveStage,
    place: Place,
    function: Callable[[Any], Awaitable[Any]],
    work: list[Work],
    collect: bool,
    concurrency: int,
    done: set[str],
) -> list[Any]:
    """Await the function for `concurrency` items at once."""
    results: list[Any] = [None] * len(work)
    queue = iter([index for index, task in enumerate(work) if task.todo])

    async def lane() -> None:
        for index in queue:
            error: BaseException | None = None
            try:
                with place.item(work[index].key, done):
                    results[index] = await function(work[index].item)
            except Exception as caught:  # noqa: BLE001 - whatever the user's function raises is settled below
                error = caught
            _settle(run, stage, work[index], error, collect, done)

    with stage:
        lanes = [asyncio.ensure_future(lane()) for _ in range(max(1, concurrency))]
        try:
            await asyncio.gather(*lanes)
        finally:
            for task in lanes:
                task.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
    return results
