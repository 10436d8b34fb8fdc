"""Run: what job code holds. Owns what a run says of itself, in memory; the pulse carries it to the store.

Nothing here waits for a store but `checkpoint` and its awaitable twin.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sized
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeVar

from milepost.core.encoding import CHECKPOINT_BYTES, cut, from_json, moment, one_line, printable, safe_str, to_json
from milepost.core.errors import JobCancelled, Stop
from milepost.core.html import bar
from milepost.core.job import Job, Stage
from milepost.tracking.command import Commands
from milepost.tracking.each import NAME_BYTES, Each, Key, key_function
from milepost.tracking.failures import shown
from milepost.tracking.ledger import Entry, Ledger
from milepost.tracking.lines import Lines
from milepost.tracking.mapping import amap, map_items, map_threads
from milepost.tracking.nesting import Place
from milepost.tracking.saying import report_of
from milepost.tracking.stages import LOOP, LiveStage, combined, every

T = TypeVar("T")
R = TypeVar("R")
LOG_LINES_KEPT = 20
LOG_LINE_BYTES = 4096

log = logging.getLogger("milepost.tracking")
log.addHandler(logging.NullHandler())


class Link(Protocol):
    """How a run reaches its store: the one thing that a run waits for."""

    def checkpoint(self, run: Run, text: str) -> None:
        """Write a checkpoint and return when the store has it. Raises a Stop when the run may not write any more."""

    async def acheckpoint(self, run: Run, text: str) -> None:
        """The same, awaited."""


class Run(Commands):
    """One attempt at a job, as its code sees it.

    `last_checkpoint` is what an earlier attempt recorded last, or None. `result` is what the job is to give (JSON).
    `fence` grows with each attempt at any job of the namespace: a store of your own can refuse writes with a lower one.
    """

    captures: frozenset[str] | None = None
    """What of its code is captured while that runs; see `tracking.capture`."""
    redact: Callable[[str], str] | None = None
    """What log lines, names of captured bars and errors pass before anybody sees them."""

    def __init__(
        self,
        job: Job,
        token: str,
        link: Link,
        *,
        plan: Mapping[str, float] | None = None,
        only: Iterable[str] | None = None,
    ) -> None:
        record = job.record
        self.job_id = job.job_id
        self.job_type = record.get("type", "")
        self.attempt = job.attempt
        self.token = token
        self._job = job
        self.last_checkpoint: Any = from_json(record["checkpoint"]) if record.get("checkpoint") else None
        at = record.get("checkpoint_at")
        self.checkpoint_at: str | None = moment(int(at)).isoformat() if at else None
        self.result: Any = None
        self.ledger = Ledger()
        self.recent_log: deque[str] = deque(maxlen=LOG_LINES_KEPT)
        self._link = link
        self._plan = dict(plan or {})
        self._only = frozenset(only) if only is not None else None
        self._resume: dict[str, dict[str, Any]] = from_json(record["cursors"]) if record.get("cursors") else {}
        self._loops: dict[str, Each[Any]] = {}
        self._done_sets: dict[str, set[str]] = {}
        self._places: dict[str, Place] = {}
        self.untold: set[str] = set()
        self.said: dict[str, str] = {"progress": "0.0"}
        """What of it cannot be told any more, and what it said last; see `tracking.saying`."""
        self._stages: list[LiveStage] = []
        self._open: list[LiveStage] = []
        self._fraction = 0.0
        self._message: str | None = None
        self._lines = Lines()
        self.masks: tuple[str, ...] = ()
        """The values of secret parameters, which nothing that the run says may show."""
        self.foreseen: Mapping[str, str] = {}
        """What its pulse expects of it: `eta` and `stalled`, as the fields of a record."""
        self.stops: list[Stop] = []
        self.on_stop: Callable[[Stop], None] | None = None

    @property
    def resumed(self) -> bool:
        """Whether the run goes on where an earlier attempt came to."""
        return bool(self._resume) or self.last_checkpoint is not None

    @property
    def planned(self) -> bool:
        """Whether all its stages were named beforehand."""
        return bool(self._plan)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the job was created with, beside its parameters."""
        return self._job.metadata or {}

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the job."""
        return self._job.labels

    @property
    def trace(self) -> str | None:
        """The trace that the job was submitted in."""
        return self._job.trace

    # --- what the job code says ---

    @property
    def fence(self) -> int:
        """The fence number of this attempt."""
        return int(self.token.partition(":")[0])

    @property
    def cancelled(self) -> bool:
        """Whether the code is to stop, asked without an exception."""
        return bool(self.stops)

    def check(self) -> None:
        """Raise JobCancelled (or another Stop) when the code is to stop: a cancel point of your own."""
        if self.stops:
            raise self.stops[0]

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """Say how far the run is (in [0, 1], clamped, never back) and what it does. A cancel point.

        What cannot be used is logged once and passed over: reporting never breaks the work.
        """
        if fraction is not None:
            if isinstance(fraction, int | float) and not isinstance(fraction, bool) and fraction == fraction:
                self._fraction = max(self._fraction, min(1.0, float(fraction)))
            else:
                log.warning("job %s: progress(%r) is not a number from 0 to 1; passed over", self.job_id, fraction)
        if message is not None:
            self._message = one_line(message)
        if self.stops:
            raise self.stops[0]

    def stage(
        self, name: str, *, weight: float | None = None, total: float | None = None, unit: str = "item"
    ) -> LiveStage:
        """Open a stage: ``with run.stage("Embedding", weight=9, total=412, unit="chunk") as stage``. Stages nest."""
        self.check()
        parent = self._open[-1] if self._open else None
        return self._enter(LiveStage(name, weight, total, unit, parent, self.stops, self._leave))

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
    ) -> Each[T]:
        """Go through items, tracked: ``for`` and ``async for``. Progress, resume cursor, cancel point, sample of the rate.

        `key` (an attribute, a dict key or a function) names an item for the resume; without it its position does.
        `batch` hands out lists. Counts into the open stage, or into one of its own when `stage` names it.
        """
        place = self._new_place(stage)
        size = total if total is not None else len(items) if isinstance(items, Sized) else None
        own: list[LiveStage] = []

        def begin(loop: Each[Any]) -> None:
            if stage is not None or not self._open:
                parent = self._open[-1] if self._open else None
                own.append(self._enter(LiveStage(stage or LOOP, weight, size, unit, parent, self.stops, self._leave)))
            into = self._open[-1]
            if into.total is None:
                into.total = size
            into._counters.append(lambda: loop.count())
            place.enter()

        def end(loop: Each[Any], finished: bool) -> None:
            place.leave()
            for made in own:
                made.end() if finished else self._leave(made)

        loop: Each[T] = Each(
            items,
            key=key,
            batch=batch,
            stops=self.stops,
            resume=self._resume.get(place.name),
            only=self._only,
            begin=begin,
            end=end,
        )
        place.at = lambda: loop.count()
        self._loops[place.name] = loop
        return loop

    def _new_place(self, stage: str | None) -> Place:
        """The place of a loop that begins now. What is kept of loops inside of items that are done goes."""
        for name in [name for name, place in tuple(self._places.items()) if place.is_over]:
            for kept in (self._places, self._loops, self._done_sets):
                kept.pop(name, None)
        return Place(self._places, stage or (self._open[-1].name if self._open else LOOP))

    def item(self, item: Any, key: Key = None) -> Entry:
        """Guard the work on one item: its Exception is written into the ledger, and the loop goes on."""
        if key is None:
            key = next((loop.key for loop in reversed(tuple(self._loops.values())) if loop.key is not None), None)
        read = key_function(key)
        return Entry(self.ledger, one_line(read(item) if read is not None else item, NAME_BYTES))

    def map(
        self,
        function: Callable[[T], R] | Callable[[T], Awaitable[R]],
        items: Iterable[T],
        *,
        key: Key = None,
        stage: str | None = None,
        errors: Literal["raise", "collect"] = "raise",
        concurrency: int = 1,
        unit: str = "item",
    ) -> Any:
        """Call a function for each item, tracked; the list of its results, in order (await it for an async function).

        ``errors="collect"`` writes a failed item into the ledger and gives None for it. What is done is remembered as
        a set of keys (up to 100,000), so that work may finish out of order; items done by an earlier attempt are
        passed over and give None.
        """
        place = self._new_place(stage)
        done: set[str] = set(self._resume.get(place.name, {}).get("done", ()))
        self._done_sets[place.name] = done
        work = map_items(items, key, done, self._only)
        into = self.stage(stage or LOOP, total=len(work), unit=unit)
        into.done = len(work) - sum(task.todo for task in work)
        if inspect.iscoroutinefunction(function):
            return amap(self, into, place, function, work, errors == "collect", concurrency, done)
        return map_threads(self, into, place, function, work, errors == "collect", concurrency, done)

    def checkpoint(self, value: Any) -> None:
        """Record where the next attempt could go on (JSON, up to 256 KiB); returns when the store has it. A cancel point.

        Raises InvalidInput for what is not JSON. When the store cannot be reached that is logged and the work goes on.
        """
        text = to_json(value, "checkpoint", CHECKPOINT_BYTES)
        self._link.checkpoint(self, text)
        self.checkpoint_at = datetime.now(UTC).isoformat()
        self.check_cancel()

    async def acheckpoint(self, value: Any) -> None:
        """`checkpoint` for code in an event loop."""
        text = to_json(value, "checkpoint", CHECKPOINT_BYTES)
        await self._link.acheckpoint(self, text)
        self.checkpoint_at = datetime.now(UTC).isoformat()
        self.check_cancel()

    def check_cancel(self) -> None:
        """Raise the Stop, unless the loop's task is about to hear it anyway as a CancelledError."""
        if self.stops and self.on_stop is None:
            raise self.stops[0]

    def log(self, text: str, level: str = "info") -> None:
        """Add lines to the job's log; each line of the text is one. Never raises, and never waits."""
        head = {"at": datetime.now(UTC).isoformat(), "level": one_line(level, 40)}
        for whole in shown(printable(safe_str(text), 16 * LOG_LINE_BYTES), self).splitlines() or [""]:
            line = cut(whole, LOG_LINE_BYTES)
            self.recent_log.append(line)
            self._lines.add([{**head, "text": line}])

    # --- what is read of it ---

    @property
    def fraction(self) -> float:
        """How far the run is, in [0, 1]."""
        if self._fraction and all(stage.captured for stage in self._stages):
            return self._fraction
        return max(self._fraction, combined(self._stages, self._plan))

    @property
    def message(self) -> str:
        """What the run does, in its own words; empty while it has said nothing."""
        return self._message or ""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages so far, as watchers see them."""
        return tuple(Stage(**stage.to_dict()) for stage in every(self._stages))

    @property
    def stage_name(self) -> str | None:
        """The innermost open stage."""
        own = self._open[-1] if self._open else None
        below = own.children if own is not None else self._stages
        bars = [stage for stage in every(below) if stage.captured and stage.is_open]
        return bars[-1].name if bars else own.name if own is not None else None

    @property
    def last_item(self) -> str | None:
        """The key of the item that was handed out last and finished."""
        for loop in reversed(tuple(self._loops.values())):
            if (last := loop.last()) is not None:
                return one_line(loop.name_of_last(last), 200)
        return None

    def report(self) -> dict[str, str]:
        """What the run says of itself now, as the fields of a record. Never raises."""
        return report_of(self)

    def take_lines(self) -> str | None:
        """The log lines since the last call, as JSON; None when there are none."""
        return self._lines.take()

    def stop(self, reason: Stop) -> None:
        """Tell the code to stop; the first reason counts. Called by the pulse and by workers."""
        if not self.stops:
            self.stops.append(reason)
            for stage in every(self._stages):
                stage.hear(reason)
            if self.on_stop is not None:
                self.on_stop(reason)

    def _enter(self, stage: LiveStage) -> LiveStage:
        self._open.append(stage)
        self._place(stage)
        return stage

    def _place(self, stage: LiveStage) -> None:
        (stage.parent.children if stage.parent is not None else self._stages).append(stage)

    def _leave(self, stage: LiveStage) -> None:
        if stage in self._open:
            del self._open[self._open.index(stage) :]

    def _repr_html_(self) -> str:
        status = "ended" if self.captures is None else "stopping" if self.stops else "running"
        return bar(self.job_id, self.job_type, status, self.fraction, shown(self.message, self), self.stages)

    def _ipython_display_(self) -> None:
        from milepost.notebook import show_run

        show_run(self)

    def __repr__(self) -> str:
        return f"<Run {self.job_type} {self.job_id} attempt {self.attempt} {self.fraction:.0%}>"


def hear_in_task(run: Run, task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> Callable[[], bool]:
    """Let a stop of the run cancel a task at its next await; gives a function that says whether it did."""
    cancelled: list[bool] = []

    def cancel() -> None:
        # Without `on_stop` the code is over, and its end is written. (To name the function itself here would make a circle of
        # references for each run, which the garbage collector would have to find.)
        if not cancelled and not task.done() and run.on_stop is not None:
            cancelled.append(True)
            task.cancel()

    def on_stop(reason: Stop) -> None:
        try:
            loop.call_soon_threadsafe(cancel)
        except RuntimeError:
            log.debug("job %s: its event loop is closed", run.job_id)

    run.on_stop = on_stop
    return lambda: bool(cancelled)


__all__ = ["JobCancelled", "Link", "Run", "hear_in_task"]
