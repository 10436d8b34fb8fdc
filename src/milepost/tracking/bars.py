"""The bars of tqdm inside a run, as its stages. Owns what is wrapped of tqdm and how a bar is read; never imports tqdm.

A tick costs what it did: nothing is wrapped that is called for each item. The pulse looks at the bars instead. tqdm
keeps the count of its own loop in a local variable and writes it to the bar when it draws, so that is where it is read.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import logging
import math
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import GeneratorType, ModuleType
from typing import TYPE_CHECKING, Any

from milepost.core.encoding import one_line
from milepost.core.errors import Stop
from milepost.tracking.belonging import current
from milepost.tracking.failures import shown
from milepost.tracking.stages import LiveStage, every

if TYPE_CHECKING:
    from milepost.tracking.run import Run

log = logging.getLogger("milepost.capture")

MODULE = "tqdm.std"
UNNAMED = "loop"
BARS_KEPT = 20
"""The most bars below one stage; older ones that have ended make room."""
_MARK = "_milepost_stage"
_DISABLE = 10
"""The place of `disable` among tqdm's parameters."""


class BarStage(LiveStage):
    """A bar of tqdm as a stage of the run that it was made in. The bar is looked at, and never kept alive."""

    __slots__ = ("_bar", "_named", "_run", "_steps", "above", "again", "closed", "place", "silent")
    captured = True

    def __init__(self, run: Run, bar: Any, name: str, parent: LiveStage | None, silent: bool) -> None:
        unit = getattr(bar, "unit", "it")
        unit = "item" if unit == "it" else one_line(str(unit).strip(), 40) or "item"
        super().__init__(name or UNNAMED, None, None, unit, parent, run.stops, run._leave)
        self.above = run._open[-1] if run._open else None
        self.place = _place()
        self.again = False
        """Whether bars of this name come again and again; the stage of all of them stays open then."""
        self.closed = False
        self.silent = silent
        """Whether tqdm does not count itself: a bar that is off for want of a terminal."""
        self._run = run
        self._named = bool(name)
        self._bar = weakref.ref(bar)
        self._steps: weakref.ref[GeneratorType[Any, Any, Any]] | None = None

    def take(self, bar: Any, silent: bool) -> None:
        """Show another bar of the same name: a library makes one for each call."""
        self.again, self.closed, self.ended_at, self.silent, self.done = True, False, None, silent, 0
        self.children.clear()
        self._bar, self._steps = weakref.ref(bar), None

    def follow(self, steps: Iterator[Any]) -> Iterator[Any]:
        """The steps of a loop over the bar."""
        if self.silent:
            steps = self._counted(steps)
        if isinstance(steps, GeneratorType):
            self._steps = weakref.ref(steps)
        return steps

    def _counted(self, steps: Iterator[Any]) -> Iterator[Any]:
        n = self.done
        try:
            for item in steps:
                yield item
                n += 1
                if self._stops:
                    raise self._stops[0]
        finally:
            self.done = n
            self._steps = None

    def silent_update(self, n: float = 1) -> None:
        """Stands for the `update` of a bar that is off for want of a terminal."""
        self.advance(_number(n) or 0)

    @property
    def count(self) -> float:
        """How many units are done."""
        self._look()
        return self.done

    @property
    def fraction(self) -> float:
        """How far the bar is, in [0, 1]."""
        self._look()
        return super().fraction

    @property
    def is_open(self) -> bool:
        """Whether it is being worked on."""
        return not self.closed

    def _look(self) -> None:
        bar = None if self.closed else self._bar()
        if bar is not None:
            self._read(bar)

    def _read(self, bar: Any) -> None:
        known = bar.__dict__
        self.total = _number(known.get("total")) or None
        n = _local_count(self._steps) if self._steps is not None else None
        if n is None and not self.silent:
            n = known.get("n")
        done = _number(n)
        if done is not None:
            self.done = done
        if not self._named and (name := _name(known.get("desc"), self._run)):
            self.name, self._named = name, True

    def close(self, bar: Any) -> None:
        """The bar is closed: the stage has ended, unless an exception has cut it short."""
        if self.closed or self._bar() is not bar:
            return
        self._read(bar)
        self.closed = True
        error = sys.exc_info()[1]
        cut_short = error is not None and not isinstance(error, GeneratorExit)
        if not self.again and (not cut_short or (self.total is not None and self.done >= self.total)):
            self.end()

    def hear(self, reason: Stop) -> None:
        """The run is to stop: the next tick of the bar raises, at the latest when it would draw."""
        bar = None if self.closed else self._bar()
        if bar is not None and not self.silent:
            bar.update = _Raises(reason)
            bar.miniters = 0


class _Raises:
    """Stands for `update` of a bar whose run is to stop."""

    def __init__(self, reason: Stop) -> None:
        self._reason = reason

    def __call__(self, n: float = 1) -> None:
        raise self._reason


def _local_count(steps: weakref.ref[GeneratorType[Any, Any, Any]]) -> Any:
    loop = steps()
    frame = loop.gi_frame if loop is not None else None
    return frame.f_locals.get("n") if frame is not None else None


def _number(value: Any) -> float | None:
    if isinstance(value, int):
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _name(desc: Any, run: Run) -> str:
    return one_line(shown(str(desc or "").strip().removesuffix(":"), run), 200)


def _place() -> tuple[int, int]:
    """What tells bars apart that are open side by side: their thread and, in an event loop, their task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident(), id(task) if task is not None else 0


# --- how a bar becomes a stage ---------------------------------------------------------------------------------------


def add_bar(run: Run, bar: Any, desc: Any, silent: bool) -> None:
    """Show a new bar as a stage, below the bar or the stage that is open where it is made."""
    name, parent = _name(desc, run), _parent(run)
    beside = parent.children if parent is not None else run._stages
    for known in beside:
        if isinstance(known, BarStage) and known.closed and known.name == (name or UNNAMED):
            known.take(bar, silent)
            _bind(known, bar)
            return
    bars = [stage for stage in beside if isinstance(stage, BarStage)]
    if len(bars) >= BARS_KEPT:
        over = next((stage for stage in bars if stage.closed), None)
        if over is None:
            return
        beside.remove(over)
    stage = BarStage(run, bar, name, parent, silent)
    _bind(stage, bar)
    run._place(stage)
    if run.stops:
        stage.hear(run.stops[0])


def _bind(stage: BarStage, bar: Any) -> None:
    setattr(bar, _MARK, stage)
    if stage.silent:
        bar.update = stage.silent_update


def _parent(run: Run) -> LiveStage | None:
    """The innermost that is open here: a bar of this thread and task, or a stage of the run's own."""
    own = run._open[-1] if run._open else None
    here = _place()
    for stage in reversed(tuple(every(run._stages))):
        if isinstance(stage, BarStage) and not stage.closed and stage.place == here and stage._bar() is not None:
            around: LiveStage | None = stage.above
            while around is not own and around is not None:
                around = around.parent
            return stage if around is own else own
    return own


def close_bars(run: Run) -> None:
    """The run's code is over: bars that were never closed, or came again and again, end when they are through."""
    for stage in every(run._stages):
        if isinstance(stage, BarStage):
            stage._look()
            if (stage.closed and stage.again) if stage.total is None else stage.done >= stage.total:
                stage.end()
            stage.closed = True


# --- what is wrapped of tqdm -----------------------------------------------------------------------------------------


def watch_tqdm() -> None:
    """Wrap tqdm now, or when it is imported."""
    module = sys.modules.get(MODULE)
    if module is not None:
        wrap(module)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Waits for tqdm to be imported, lets it be found as ever, and wraps it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module as the other finders give it, with one step after its execution."""
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # some loaders serve several modules
            execute(module)
            wrap(module)

        loader.exec_module = exec_module
        return spec


def wrap(module: ModuleType) -> None:
    """Wrap what makes, walks and closes a bar; once. A bar outside of any run is left alone."""
    bar_class: Any = getattr(module, "tqdm", None)
    if bar_class is None or hasattr(bar_class.__init__, _MARK):
        return
    make: Callable[..., None] = bar_class.__init__
    walk: Callable[[Any], Iterator[Any]] = bar_class.__iter__
    close: Callable[[Any], None] = bar_class.close

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        run = current()
        if run is None or not ("tqdm" in (run.captures or ()) or hasattr(type(self), "always_captured")):
            make(self, *args, **kwargs)
            return
        if run.stops:
            raise run.stops[0]
        make(self, *args, **kwargs)
        asked = kwargs.get("disable", args[_DISABLE] if len(args) > _DISABLE else False)
        if not self.disable or asked is None:
            _guarded(add_bar, run, self, kwargs.get("desc", args[1] if len(args) > 1 else None), bool(self.disable))

    @functools.wraps(walk)
    def __iter__(self: Any) -> Iterator[Any]:
        steps = walk(self)
        stage = self.__dict__.get(_MARK)
        return steps if stage is None else stage.follow(steps)

    @functools.wraps(close)
    def closed(self: Any) -> None:
        stage = self.__dict__.get(_MARK)
        if stage is not None:
            _guarded(stage.close, self)
        close(self)

    setattr(__init__, _MARK, True)
    bar_class.__init__, bar_class.__iter__, bar_class.close = __init__, __iter__, closed


def _guarded(step: Callable[..., None], *args: Any) -> None:
    """What goes wrong with a picture of the work never breaks the work."""
    try:
        step(*args)
    except Exception:
        log.warning("a bar of tqdm cannot be shown as a stage", exc_info=True)
