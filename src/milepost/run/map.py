"""Calls a function for many items, several at once, in threads or in an event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from milepost.core.errors import InputChangedError, InvalidInputError
from milepost.core.serialization import single_line
from milepost.run.crash_report import masked
from milepost.run.cursor import REMEDIES, LoopScope
from milepost.run.each import NAME_BYTES, Key, key_function, reached
from milepost.run.item_content import digest, shown
from milepost.run.items import RepeatedItems
from milepost.run.loops import check_resumable, count_in_stage, log_loop, log_restart, new_place, recorder, take_up
from milepost.run.results import KeptResult, KeptResults, ResultCodec, part_key, part_names, read_part

if TYPE_CHECKING:
    from milepost.run.run import Run


MAX_DONE_KEYS = 100_000


class MapItem(NamedTuple):
    """An item, its key, and whether it is still to be processed."""

    item: Any
    key: str
    todo: bool


def map_items(
    items: Iterable[Any],
    key: Key,
    done: set[str],
    only: RepeatedItems | None,
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
        work.append(MapItem(item, name, (only is None or only.take(masked(name, masks))) and name not in done))
    return work


T = TypeVar("T")


class MapProgress:
    """The progress of a map: the keys of finished items, and what the next attempt needs to know about them."""

    def __init__(self, total: int, *, mode: str, is_keyed: bool, function: str, results: KeptResults) -> None:
        self.done: set[str] = set()
        self.results = results
        self._total = total
        self._mode = mode
        self._is_keyed = is_keyed
        self._function = function
        self._items: list[Any] | None = None

    def stand_at(self, item: list[Any]) -> None:
        """Keep what identifies one of the finished items."""
        self._items = item

    def cursor(self) -> dict[str, Any]:
        """Return the keys or results that the next attempt continues with, or how far a plain map is."""
        n = len(self.done)
        if self._mode == "plain":
            return reached(n, self._total)
        cursor = {"n": n, "of": self._total, "keyed": self._is_keyed}
        if self._mode == "keep":
            return {**cursor, "function": self._function, **self.results.cursor()}
        return {**cursor, "done": sorted(self.done), **({"item": self._items} if self._items is not None else {})}

    def is_passed(self, cursor: Mapping[str, Any]) -> Callable[[Any], bool]:
        """Return which items the next attempt skips."""
        done = frozenset(self.done) if self._mode == "keep" else frozenset(cursor.get("done", ()))
        return lambda at: at in done


class MapLoop:
    """One call of `run.map`."""

    def __init__(
        self, run: Run, function: Callable[[Any], Any], items: Iterable[Any], *, key: Key, stage: str | None,
        collect: bool, concurrency: int, unit: str, mode: str,
    ) -> None:  # fmt: skip
        if mode != "plain":
            check_resumable(run, items if key is None else (), mode)
        self._run = run
        self._function = function
        self._collect = collect
        self._concurrency = concurrency
        self._codec = ResultCodec(function)
        self._keeps = mode == "keep" and run._loops.only is None
        self._is_keyed = key is not None
        self._place: LoopScope = new_place(run, stage, resumes=mode != "plain", is_counted=mode == "keep")
        self._kept = kept = run._loops.earlier.get(self._place.name, {})
        is_same = kept.get("keyed") == self._is_keyed and kept.get("function", self._codec.name) == self._codec.name
        self._continues = mode != "plain" and is_same and ("results" if mode == "keep" else "done") in kept
        self._mode = mode
        before = frozenset(kept["done"]) if self._continues and mode == "pass" else frozenset()
        self._work = map_items(items, key, set(before), run._loops.only, run._secret_values, unique=mode != "plain")
        self._results: list[Any] = [None] * len(self._work)
        if self._continues and run._loops.only is None:
            self._check_total()
        prefix = f"{run.fence}.{next(run._numbers)}"
        results = KeptResults(prefix, run._budget, kept if self._continues and mode == "keep" else {})
        self._mapped = MapProgress(
            len(self._work), mode=mode, is_keyed=self._is_keyed, function=self._codec.name, results=results
        )
        self._mapped.done.update(before)
        if before and not self._is_keyed and run._loops.only is None:
            self._check_place()
        if not self._continues or mode != "keep":
            take_up(run, self._place, kept, self._continues)
        run._loops.maps[self._place.name] = self._mapped
        run._loops.earlier.pop(self._place.name, None)
        self._stage_name, self._unit = stage, unit

    @property
    def parts(self) -> list[str]:
        """Return the keys of the parts with kept results."""
        if not self._continues or not self._keeps:
            return []
        return [part_key(self._run.job_id, name) for name in part_names(self._kept)]

    @contextmanager
    def counted(self, parts: Sequence[str | None]) -> Iterator[None]:
        """Take the kept results, log what is skipped, and count the finished items in a stage."""
        if self._continues and self._mode == "keep":
            self._take(parts if self._keeps else ())
        count = sum(task.key in self._mapped.done for task in self._work)
        total = len(self._work)
        if self._continues and count and self._keeps:
            log_loop(self._run, self._place, f"resumed: {count} of {total} items were finished, their results are kept")
        elif self._continues and count:
            log_loop(self._run, self._place, f"resumed: {count} of {total} items passed over, their results are None")
        elif not self._continues:
            log_restart(self._run, self._place, self._kept, remedy=self._remedy())
        todo = sum(task.todo for task in self._work)
        total = total if self._run._loops.only is None else todo
        self._finished = total - todo
        self._run.check()
        stage, own = count_in_stage(
            self._run, self._place, self._stage_name, None, total, self._unit, lambda: self._finished
        )
        try:
            with own or nullcontext():
                yield
        finally:
            stage.unfollow(self._place)

    def run(self) -> list[Any]:
        """Call the function for the remaining items, in this thread or in `concurrency` threads; return all results."""
        with self._kept_work():
            parts = [self._run._checkpoint_writer.read(self._run, key) for key in self.parts]
            with self.counted(parts):
                if self._concurrency > 1:
                    self._call_in_threads()
                else:
                    self._call_here()
        return self._results

    async def arun(self) -> list[Any]:
        """Await the function for the remaining items, `concurrency` at once; return all results."""
        with self._kept_work():
            parts = [await self._run._checkpoint_writer.aread(self._run, key) for key in self.parts]
            with self.counted(parts):
                await self._call_in_tasks()
        return self._results

    def _todo(self) -> Iterator[int]:
        return iter([index for index, task in enumerate(self._work) if task.todo])

    def _call(self, task: MapItem) -> Any:
        with self._place.item(task.key, self._mapped.done):
            return self._function(task.item)

    def _call_here(self) -> None:
        for index in self._todo():
            error: BaseException | None = None
            try:
                self._results[index] = self._call(self._work[index])
            except Exception as caught:  # noqa: BLE001 - whatever the user's function raises is settled below
                error = caught
            self._settle(index, error)

    def _call_in_threads(self) -> None:
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix=f"milepost-map-{self._run.job_id[:8]}")
        waiting: dict[Future[Any], int] = {}
        try:
            queue = self._todo()
            while True:
                while len(waiting) < self._concurrency and (index := next(queue, -1)) >= 0:
                    waiting[pool.submit(copy_context().run, self._call, self._work[index])] = index
                if not waiting:
                    return
                ready, _ = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
                self._run.check()
                for future in ready:
                    index = waiting.pop(future)
                    failed = future.exception()
                    self._results[index] = None if failed is not None else future.result()
                    self._settle(index, failed)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for future, index in waiting.items():  # empty unless a stop or the error of another item ended the loop
                if not future.cancelled() and future.exception() is None:
                    self._results[index] = future.result()
                    with suppress(InvalidInputError):  # a result that cannot be kept does not hide why the loop ended
                        self._record(index, None)

    async def _call_in_tasks(self) -> None:
        queue = self._todo()

        async def call_next() -> None:
            for index in queue:
                error: BaseException | None = None
                try:
                    with self._place.item(self._work[index].key, self._mapped.done):
                        self._results[index] = await self._function(self._work[index].item)
                except Exception as caught:  # noqa: BLE001 - whatever the user's function raises is settled below
                    error = caught
                self._settle(index, error)

        tasks = [asyncio.ensure_future(call_next()) for _ in range(max(1, self._concurrency))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _kept_work(self) -> AbstractContextManager[None]:
        return nullcontext() if self._mode == "plain" else self._run._kept_work.spent()

    def _settle(self, index: int, error: BaseException | None) -> None:
        """Record the outcome of one item; raise its error unless errors are collected."""
        if error is not None and not (self._collect and isinstance(error, Exception)):
            raise error
        self._record(index, error)
        if self._run._stop_reasons:
            raise self._run._stop_reasons[0]

    def _record(self, index: int, error: BaseException | None) -> None:
        """Count one item as finished or failed, and keep its result."""
        task = self._work[index]
        if error is None and self._keeps:
            text, is_typed = self._codec.dump(self._results[index], task.key)
            own = None if self._is_keyed else digest(task.item)
            name = None if self._is_keyed else masked(shown(task.item), self._run._secret_values)
            self._mapped.results.add(KeptResult(task.key, own, name, text, is_typed))
        recorder(self._run, self._place, task.key)(masked(task.key, self._run._secret_values), error, False)
        if error is None and (self._keeps or len(self._mapped.done) < MAX_DONE_KEYS):
            if self._mode == "pass" and not self._is_keyed:
                place = [int(task.key), digest(task.item), masked(shown(task.item), self._run._secret_values)]
                self._mapped.stand_at(place)
            self._mapped.done.add(task.key)
        self._finished += 1

    def _take(self, parts: Sequence[str | None]) -> None:
        """Take the results that an earlier attempt kept. An item whose result is gone is processed again."""
        kept = [KeptResult(*entry) for entry in self._kept["results"]]
        for part in parts:
            kept += read_part(part)
        index_of = {task.key: index for index, task in enumerate(self._work)}
        for one in kept:
            self._run._budget.spend(one)
            index = index_of.get(one.key)
            if index is None or not self._codec.knows(one):
                continue
            task = self._work[index]
            now = None if self._is_keyed else digest(task.item)
            if one.digest is not None and now is not None and now != one.digest:
                raise self._changed(index, one.shown)
            self._results[index] = self._codec.load(one)
            self._work[index] = task._replace(todo=False)
            self._mapped.done.add(one.key)
        is_whole = len(self._mapped.done) == self._kept.get("n")
        take_up(self._run, self._place, self._kept, is_whole)
        if not is_whole:  # the items whose results are gone count again, so the others are counted anew
            for key in sorted(self._mapped.done):
                recorder(self._run, self._place, key)(masked(key, self._run._secret_values), None, False)

    def _check_total(self) -> None:
        before, now = self._kept.get("of"), len(self._work)
        if not self._is_keyed and before != now:
            raise InputChangedError(f"the last attempt had {before} items, this one has {now}", REMEDIES)

    def _check_place(self) -> None:
        """Reject a position if another item is where the last finished one was."""
        at, kept, text = self._kept.get("item") or (None, None, None)
        if at is not None and kept is not None and (now := digest(self._work[at].item)) is not None and now != kept:
            raise self._changed(at, text)

    def _changed(self, index: int, before: str | None) -> InputChangedError:
        now = masked(shown(self._work[index].item), self._run._secret_values)
        return InputChangedError(f"item {index + 1} was {before} in the last attempt, now it is {now}", REMEDIES)

    def _remedy(self) -> str:
        if self._mode == "plain":
            return "without resume=False their results would be kept"
        if self._mode == "keep":
            same = self._kept.get("function", self._codec.name) == self._codec.name
            return "the results are those of this function" if not same else "results were not kept then"
        return (
            "keep=False was not given then" if "done" not in self._kept else "key was given in one of the two runs only"
        )


def begin_map(
    run: Run,
    function: Callable[[T], Any],
    items: Iterable[T],
    *,
    key: Key,
    stage: str | None,
    collect: bool,
    concurrency: int,
    unit: str,
    keep: bool,
    resume: bool | None,
) -> Any:
    """Run `Run.map`, or return its coroutine."""
    mode = "plain" if resume is False else "pass" if resume or not keep else "keep"
    loop = MapLoop(
        run, function, items, key=key, stage=stage, collect=collect, concurrency=concurrency, unit=unit, mode=mode
    )
    if not inspect.iscoroutinefunction(function):
        return loop.run()
    return run._awaited("map", loop.arun())
