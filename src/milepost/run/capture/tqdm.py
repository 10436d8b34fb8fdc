"""Captures tqdm bars inside a run as stages of the run: those of `milepost.tqdm`, and all with ``capture="tqdm"``.

The loop of a bar is counted here, because tqdm writes its count to the bar only when it draws.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import sys
import threading
import weakref
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from milepost.core.serialization import single_line
from milepost.run.context import current
from milepost.run.crash_report import redacted
from milepost.run.stages import LiveStage, flatten_stages, now_text

if TYPE_CHECKING:
    from milepost.run.run import Run

log = logging.getLogger("milepost.capture")

UNNAMED = "loop"
MAX_BARS = 20
"""The maximum number of bars below one stage; older ones that have ended are removed."""
_MARK = "_milepost_stage"
_DISABLE = 10
"""The position of `disable` among tqdm's parameters."""


class BarStage(LiveStage):
    """A bar of tqdm as a stage of the run that it was made in. It holds the bar by a weak reference."""

    __slots__ = (
        "_bar",
        "_is_counting",
        "_named",
        "_run",
        "caller_id",
        "closed",
        "closed_at",
        "enclosing",
        "is_recurring",
        "silent",
    )
    captured = True

    def __init__(self, run: Run, bar: Any, name: str, parent: LiveStage | None, silent: bool) -> None:
        unit = getattr(bar, "unit", "it")
        unit = "item" if unit == "it" else single_line(str(unit).strip(), 40) or "item"
        super().__init__(name or UNNAMED, None, None, unit, parent, run._stop_reasons, run._leave)
        self.enclosing = run._innermost
        self.caller_id = _caller_id()
        self.is_recurring = False
        """Whether bars of this name are made again and again; between them the stage of all of them stays open."""
        self.closed = False
        self.closed_at: str | None = None
        self.silent = silent
        """Whether tqdm does not count itself: a bar that is disabled because there is no terminal."""
        self._run = run
        self._named = bool(name)
        self._bar = weakref.ref(bar)
        self._is_counting = False

    def reuse(self, bar: Any, silent: bool) -> None:
        """Show another bar of the same name: a library makes one for each call."""
        self.is_recurring, self.closed, self.ended_at, self.silent, self.done = True, False, None, silent, 0
        self.closed_at = None
        self.children.clear()
        self._bar, self._is_counting = weakref.ref(bar), False

    def iterate(self, steps: Generator[Any, None, None]) -> Generator[Any, None, None]:
        """Yield the items of a loop over the bar and count them. Raises the RunStop of a stopped run in the loop."""
        self._is_counting, stops = True, self._stops
        try:
            for item in steps:
                yield item
                self.done += 1
                if stops:
                    steps.throw(stops[0])
        finally:
            steps.close()
            self._is_counting = False

    def update(self, update: Callable[[Any, float], Any], bar: Any, n: float) -> Any:
        """Update the bar. Raises the RunStop of a stopped run."""
        if self.silent and not self._is_counting:
            self.advance(_number(n) or 0)
        elif self._stops:
            raise self._stops[0]
        return update(bar, n)

    @property
    def count(self) -> float:
        """Return how many units are done."""
        self._refresh()
        return self.done

    @property
    def fraction(self) -> float:
        """Return how far the bar is, from 0 to 1."""
        self._refresh()
        return super().fraction

    @property
    def is_open(self) -> bool:
        """Return whether the bar is open."""
        return not self.closed

    def _refresh(self) -> None:
        bar = None if self.closed else self._bar()
        if bar is not None:
            self._read(bar)

    def _read(self, bar: Any) -> None:
        known = bar.__dict__
        self.total = _number(known.get("total")) or None
        done = None if self.silent or self._is_counting else _number(known.get("n"))
        if done is not None:
            self.done = done
        if not self._named and (name := _name(known.get("desc"), self._run)):
            self.name, self._named = name, True

    def close(self, bar: Any) -> None:
        """Note that the bar is closed: the stage has ended, unless an exception interrupted it."""
        if self.closed or self._bar() is not bar:
            return
        self._read(bar)
        self.closed, self.closed_at = True, now_text()
        error = sys.exc_info()[1]
        cut_short = error is not None and not isinstance(error, GeneratorExit)
        if not self.is_recurring and (not cut_short or (self.total is not None and self.done >= self.total)):
            self.end()

    def end_if_over(self) -> None:
        """End the stage of recurring bars if none is open, as of the time when the last one was closed."""
        if self.closed and self.is_recurring:
            self.end()

    def end(self) -> None:
        """End the stage, as of the time when its bar was closed."""
        super().end()
        self.ended_at = self.closed_at or self.ended_at


def _number(value: Any) -> float | None:
    if isinstance(value, int):
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _name(desc: Any, run: Run) -> str:
    return single_line(redacted(str(desc or "").strip().removesuffix(":"), run), 200)


def _caller_id() -> tuple[int, int]:
    """Return what distinguishes bars that are open at the same time: their thread and, in an event loop, their task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident(), id(task) if task is not None else 0


# --- from bar to stage -----------------------------------------------------------------------------------------------


def add_bar(run: Run, bar: Any, desc: Any, silent: bool) -> None:
    """Show a new bar as a stage, below the bar or stage that is open where it is made."""
    name, parent = _name(desc, run), _parent(run)
    siblings = parent.children if parent is not None else run._stages
    for known in siblings:
        if isinstance(known, BarStage) and known.closed and known.name == (name or UNNAMED):
            known.reuse(bar, silent)
            setattr(bar, _MARK, known)
            return
    bars = [stage for stage in siblings if isinstance(stage, BarStage)]
    if len(bars) >= MAX_BARS:
        over = next((stage for stage in bars if stage.closed), None)
        if over is None:
            return
        siblings.remove(over)
    stage = BarStage(run, bar, name, parent, silent)
    setattr(bar, _MARK, stage)
    run._add_stage(stage)


def _parent(run: Run) -> LiveStage | None:
    """Return the innermost open bar of this thread and task, or the stage that they are in."""
    own = run._innermost
    here = _caller_id()
    for stage in reversed(tuple(flatten_stages(run._stages))):
        if isinstance(stage, BarStage) and not stage.closed and stage.caller_id == here and stage._bar() is not None:
            around: LiveStage | None = stage.enclosing
            while around is not own and around is not None:
                around = around.parent
            return stage if around is own else own
    return own


def close_bars(run: Run) -> None:
    """End the bars of a run whose code has ended, as far as they are complete."""
    for stage in flatten_stages(run._stages):
        if isinstance(stage, BarStage):
            stage._refresh()
            if (stage.closed and stage.is_recurring) if stage.total is None else stage.done >= stage.total:
                stage.end()
            stage.closed = True


# --- the methods of a bar -------------------------------------------------------------------------------------------


def patch_tqdm() -> None:
    """Let all bars of tqdm be captured in the runs that ask for it. Without tqdm there is nothing to do."""
    try:
        from tqdm.std import tqdm
    except ImportError:
        return
    for name, method in capturing_methods(tqdm, lambda run: "tqdm" in (run._captures or ())).items():
        setattr(tqdm, name, method)


@functools.cache
def _methods_of_tqdm(bar_class: Any) -> tuple[Callable[..., Any], ...]:
    """Return the methods of tqdm itself, also after they were replaced."""
    return bar_class.__init__, bar_class.__iter__, bar_class.update, bar_class.close


def capturing_methods(bar_class: Any, is_captured: Callable[[Run], bool]) -> dict[str, Callable[..., Any]]:
    """Return the methods that make, iterate, update and close a bar, and show it as a stage in a run that captures it."""
    make, walk, advance, finish = _methods_of_tqdm(bar_class)

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        run = current()
        if run is None or not is_captured(run):
            make(self, *args, **kwargs)
            return
        if run._stop_reasons:
            raise run._stop_reasons[0]
        make(self, *args, **kwargs)
        disable = kwargs.get("disable", args[_DISABLE] if len(args) > _DISABLE else False)
        if not self.disable or disable is None:
            _guarded(add_bar, run, self, kwargs.get("desc", args[1] if len(args) > 1 else None), bool(self.disable))

    @functools.wraps(walk)
    def __iter__(self: Any) -> Any:
        stage = self.__dict__.get(_MARK)
        return walk(self) if stage is None else stage.iterate(walk(self))

    @functools.wraps(advance)
    def update(self: Any, n: float = 1) -> Any:
        stage = self.__dict__.get(_MARK)
        return advance(self, n) if stage is None else stage.update(advance, self, n)

    @functools.wraps(finish)
    def close(self: Any) -> None:
        stage = self.__dict__.get(_MARK)
        if stage is not None:
            _guarded(stage.close, self)
        finish(self)

    return {"__init__": __init__, "__iter__": __iter__, "update": update, "close": close}


def _guarded(step: Callable[..., None], *args: Any) -> None:
    """Call a function and log its error: a failing capture must not break the work."""
    try:
        step(*args)
    except Exception:
        log.warning("tqdm bar not captured", exc_info=True)
