"""The stages of a run, and how far the run is by them.

Nothing here waits. Threads may advance one stage at the same time: the GIL keeps the count of whole numbers close
enough for a progress bar.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from milepost.core.errors import InvalidInputError, RunStop
from milepost.core.serialization import finite_number, single_line
from milepost.run import context
from milepost.run.crash_report import masked, masked_line
from milepost.run.loop_counts import LoopCounts
from milepost.run.stage_plan import weights_of

if TYPE_CHECKING:
    from milepost.run.run import Run

log = logging.getLogger("milepost.run")

ROUNDING = 1e-6
UNIT_CHARS = 64
LARGE = 2**63
MAX_STAGES = 200
"""How many stages a run keeps; each report and event has all of them."""


class LiveStage:
    """A stage of a run: ``with run.stage("Embedding", weight=9, total=412, unit="chunk") as stage``."""

    captured = False
    """Whether this is a captured bar. Captured bars set the progress of a run only if it reports none itself."""

    __slots__ = (
        "_leave",
        "_stops",
        "_total",
        "by_handler",
        "children",
        "done",
        "ended_at",
        "has_raised",
        "left_at",
        "loops",
        "name",
        "parent",
        "started_at",
        "unit",
        "weight",
    )

    def __init__(
        self,
        name: str,
        weight: float | None,
        total: float | None,
        unit: str,
        parent: LiveStage | None,
        stops: list[RunStop],
        leave: Callable[[LiveStage], None],
    ) -> None:
        self.name = single_line(name, 200)
        self.weight = None if weight is None else checked_number(weight, "weight of stage", self.name)
        if self.weight is not None and self.weight < 0:
            log.warning("weight of stage %.80r: %g is negative; ignored", self.name, self.weight)
            self.weight = None
        self.loops = LoopCounts()
        """The tracked loops that count here."""
        self.total = total
        self.unit = single_line(unit or "item", UNIT_CHARS)
        self.parent = parent
        self.by_handler = False
        """Whether the handler's own task or thread has opened it."""
        self.done: float = 0
        self.children: list[LiveStage] = []
        self.started_at = now_text()
        self.ended_at: str | None = None
        self.left_at: str | None = None
        """When the code left the stage before its end, by `break` or an exception; None if that is where the run has ended."""
        self.has_raised = False
        """Whether an exception left the `with` block of the stage."""
        self._stops = stops
        self._leave = leave

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done. Raises JobCancelled (or another RunStop) if the run is stopped.

        A negative `n` corrects the count. One below 0, and what is not a number, is logged and ignored.
        """
        if self.loops.is_doubtful:
            self.loops.drop_doubtful()
        if isinstance(n, int) and 0 <= n < LARGE:  # the usual case, which needs no further check
            self.done += n
        elif (number := checked_number(n, "advance of stage", self.name)) is not None:
            if self.done + number < 0:
                log.warning("advance of stage %.80r: %g would make its count negative; ignored", self.name, number)
            else:
                self.done += number
        if self._stops:
            raise self._stops[0]

    @property
    def total(self) -> float | None:
        """How many units the stage has, or None if that is unknown; a stage beyond its total has none."""
        if self.loops.is_doubtful:
            return None
        total = self._total if self._total is not None else self.loops.total
        return None if total is not None and self.count > total + abs(total) * ROUNDING else total

    @total.setter
    def total(self, total: float | None) -> None:
        number = None if total is None else checked_number(total, "total of stage", self.name)
        self._total = None if number is None or number < 0 else number

    @property
    def count(self) -> float:
        """Return how many units are done, including those of tracked loops."""
        return self.done + self.loops.count()

    def follow(self, loop: object, around: object | None, size: float | None, count: Callable[[], float]) -> None:
        """Count the items of a tracked loop, which may be inside the loop `around`, until its `unfollow`."""
        left = None if self._total is None else self._total - self.count
        is_too_large = left is not None and size is not None and size > left
        self.loops.add(loop, around, size, count, self._total)
        if is_too_large:
            self.loops.doubt(loop, is_counted=not self.done)

    def unfollow(self, loop: object) -> None:
        """Keep the count of a loop that has ended."""
        self.loops.end(loop)

    @property
    def fraction(self) -> float:
        """Return how far the stage is, from 0 to 1."""
        if self.ended_at is not None:
            return 1.0
        if total := self.total:
            return min(1.0, self.count / total)
        return estimate(self.children, {}).fraction

    @property
    def is_open(self) -> bool:
        """Return whether the stage is in progress."""
        return self.ended_at is None

    def is_in(self, stage: LiveStage) -> bool:
        """Return whether this is the stage, or a part of it."""
        return self is stage or (self.parent is not None and self.parent.is_in(stage))

    def end(self) -> None:
        """End the stage; leaving its `with` block does so."""
        if self.ended_at is None:
            self.ended_at = now_text()
            self._leave(self)
            for stage in self.children:
                stage.end_if_over()

    def end_if_over(self) -> None:
        """End a stage that waits for another bar of its name. No other kind of stage does."""

    def __enter__(self) -> LiveStage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.end()
        else:
            self.has_raised = True
            self._leave(self)

    async def __aenter__(self) -> LiveStage:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, at)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of `core.job.Stage`."""
        done = self.count
        shown: dict[str, Any] = {"name": self.name, "done": done, "unit": self.unit, "started_at": self.started_at}
        if self.weight is not None:
            shown["weight"] = self.weight
        if (total := self.total) is not None:
            shown["total"] = total
        if self.parent is not None:
            shown["parent"] = self.parent.name
        if ended_at := self.ended_at or self.left_at:
            shown["ended_at"] = ended_at
        return shown


class Estimate(NamedTuple):
    """A fraction in [0, 1], and whether it counts all that is to come."""

    fraction: float
    is_known: bool


def estimate(stages: list[LiveStage], plan: Mapping[str, float]) -> Estimate:
    """Return how far some stages are, as a fraction of the whole, and whether that is known.

    A plan names all stages beforehand. Without one, weights are shares of 1, of 10 or of 100, whichever is the least that
    holds those seen so far. Without either, a first stage of known total is taken to be the whole; from the second on
    the share of each is unknown, and so is the whole.
    """
    stages = [stage for stage in stages if not stage.captured] or ([] if plan else stages)
    if plan:
        known = {stage.name: stage for stage in stages}
        extra = sum(_weight(stage) for name, stage in known.items() if name not in plan)
        whole = sum(plan.values()) + extra
        made = sum(plan.get(name, _weight(stage)) * stage.fraction for name, stage in known.items())
        return Estimate(min(1.0, made / whole) if whole > 0 else 0.0, True)
    if any(stage.weight is not None for stage in stages):
        seen = whole = sum(_weight(stage) for stage in stages)
        if seen <= 100.0001:
            whole = 100.0 if seen > 10.0001 else 10.0 if seen > 1.0001 or _weight(stages[0]) >= 1 else 1.0
        return Estimate(min(1.0, sum(_weight(stage) * stage.fraction for stage in stages) / whole), True)
    if len(stages) != 1:
        return Estimate(0.0, False)
    (only,) = stages
    if only.total or only.ended_at is not None:
        return Estimate(only.fraction, bool(only.total))
    return estimate(only.children, {})


RUNNING_MOST = 0.99
"""The most that a run is said to have done before it has completed."""
LOOP = "items"
"""The name of the stage that a tracked loop outside any stage opens."""


def flatten_stages(stages: list[LiveStage]) -> Iterable[LiveStage]:
    """Yield stages and those inside them, outer ones first."""
    for stage in stages:
        yield stage
        yield from flatten_stages(stage.children)


def _weight(stage: LiveStage) -> float:
    return 1.0 if stage.weight is None else stage.weight


def checked_number(value: Any, what: str, name: str) -> float | None:
    """Return a number that code has given, also of numpy; log what is none, and return None.

    The log names it as `what` of `name`: ``total of stage 'Embed'``.
    """
    number = finite_number(value)
    if number is None:
        log.warning("%s %.80r: %.40r is not a finite number; ignored", what, name, value)
    return number


def whole_number(value: Any, what: str, name: str) -> int | None:
    """Return a number of items; log what is none, and return None."""
    number = checked_number(value, what, name)
    return None if number is None or number < 0 else int(number)


def now_text() -> str:
    """Return the time, as stages hold it."""
    return datetime.now(UTC).isoformat()


class ProgressMixin:
    """The part of a `Run` that reports progress."""

    job_id: str
    _secret_values: tuple[str, ...]
    _stop_reasons: list[RunStop]
    _plan: Mapping[str, float]
    _stages: list[LiveStage]
    _stages_by_age: list[LiveStage]
    _open: list[LiveStage]
    _started_in: context.ThreadAndTask | None
    _has_returned = False
    """Whether the code has returned or raised."""
    _message: str | None
    _fraction: float
    _reached: float

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """Report how far the run is (from 0 to 1, never back) and what it does. A cancellation point.

        Raises InvalidInputError for more than 1, which is a percentage and not a fraction. A value that is not a number is
        logged and ignored.
        """
        if fraction is not None:
            number = finite_number(fraction)
            if number is not None and number > 1.0 + ROUNDING:
                raise InvalidInputError(
                    "progress", f"{number!r:.40} must be a fraction from 0 to 1; did you mean {number / 100:g}?"
                )
            if number is not None:
                self._fraction = max(self._fraction, min(1.0, float(number)))
            else:
                log.warning("job %s: progress(%.40r) is not a number from 0 to 1; ignored", self.job_id, fraction)
        if message is not None:
            self._message = masked_line(message, self._secret_values)
        if self._stop_reasons:
            raise self._stop_reasons[0]

    def plan(self, *stages: str | tuple[str, float]) -> None:
        """Name all stages of the run beforehand, with their shares of the time where these differ.

        ``run.plan("Load", ("Embed", 9), "Persist")``: embedding takes nine times as long as either of the others. Until
        its stages are known, a run of several stages has no percentage.
        """
        self._plan = {masked(name, self._secret_values): weight for name, weight in weights_of(stages).items()}

    @property
    def fraction(self) -> float:
        """How far the run is, in [0, 1], never back. The record says 1 only when the job has completed."""
        if self._fraction and all(stage.captured for stage in self._stages):
            return self._fraction
        self._reached = max(self._reached, self._estimate().fraction)
        return max(self._fraction, self._reached)

    @property
    def _shown_fraction(self) -> float:
        """`fraction` for display: 1 only if the code reported it or the job has completed."""
        return max(self._fraction, min(RUNNING_MOST, self.fraction))

    @property
    def progress_known(self) -> bool:
        """Whether `fraction` includes all stages that follow; see `plan`."""
        return self._fraction > 0 or self._estimate().is_known

    def _estimate(self) -> Estimate:
        return estimate(self._stages, self._plan)

    @property
    def _innermost(self) -> LiveStage | None:
        """The open stage that the caller is in. Tasks and `to_thread` inherit it; a plain thread is in that of the handler."""
        stage = context.innermost_stage.get()
        while stage is not None and stage not in self._open:
            stage = stage.parent
        if stage is None and not context.is_carried(cast("Run", self)):
            stage = next((one for one in reversed(self._open) if one.by_handler), None)
        return stage

    def _enter(self, stage: LiveStage) -> LiveStage:
        for left in self._stages_by_age:
            if left.ended_at is None and not left.has_raised:
                left.ended_at = left.left_at  # a loop that the code left by `break`
        stage.by_handler = context.thread_and_task() == self._started_in
        context.innermost_stage.set(stage)
        self._open.append(stage)
        self._add_stage(stage)
        return stage

    def _leave(self, stage: LiveStage) -> None:
        if stage.ended_at is None and not self._has_returned:
            stage.left_at = now_text()  # not those behind it: other tasks and threads may be in them
        for one in [one for one in self._open if one.is_in(stage)]:
            with suppress(ValueError):  # another thread was faster
                self._open.remove(one)

    def _leave_all(self, error: BaseException | None) -> None:
        """Note that the code has returned, and so left its loops: asynchronous ones may be closed only later.

        After an error or a stop, the stages that it has left are open again: the run has ended in them.
        """
        self._has_returned = True
        for stage in self._stages_by_age:
            if error is not None:
                stage.left_at = None
            elif stage.loops.are_open:
                stage.left_at = stage.left_at or now_text()

    def _add_stage(self, stage: LiveStage) -> None:
        siblings = self._siblings(stage)
        for earlier in siblings:
            earlier.end_if_over()
        siblings.append(stage)
        self._stages_by_age.append(stage)
        if len(self._stages_by_age) > MAX_STAGES:
            self._forget_stage()

    def _forget_stage(self) -> None:
        """Leave out the oldest stage that has ended and has no share of the progress."""
        for stage in self._stages_by_age:
            has_share = stage.weight is not None or stage.name in self._plan or stage is self._stages[0]
            if (stage.ended_at or stage.left_at) and not has_share:
                with suppress(ValueError):  # another thread was faster
                    self._stages_by_age.remove(stage)
                    self._siblings(stage).remove(stage)
                return

    def _siblings(self, stage: LiveStage) -> list[LiveStage]:
        return stage.parent.children if stage.parent is not None else self._stages
