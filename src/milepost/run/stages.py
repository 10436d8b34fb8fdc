"""The stages of a run, and how far the run is by them.

Nothing here waits. Threads may advance one stage at the same time: the GIL keeps the count of whole numbers close
enough for a progress bar.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, NamedTuple

from milepost.core.errors import InvalidInputError, RunStop
from milepost.core.serialization import single_line
from milepost.run.crash_report import masked, masked_line


class LiveStage:
    """A stage of a run: ``with run.stage("Embedding", weight=9, total=412, unit="chunk") as stage``."""

    captured = False
    """Whether this is a captured bar. Captured bars set the progress of a run only if it reports none itself."""

    __slots__ = (
        "_counters",
        "_leave",
        "_stops",
        "children",
        "done",
        "ended_at",
        "name",
        "parent",
        "started_at",
        "total",
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
        self.weight = weight
        self.total = total
        self.unit = unit
        self.parent = parent
        self.done: float = 0
        self.children: list[LiveStage] = []
        self.started_at = now_text()
        self.ended_at: str | None = None
        self._stops = stops
        self._leave = leave
        self._counters: list[Callable[[], float]] = []

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done. Raises JobCancelled (or another RunStop) if the run is stopped."""
        self.done += n
        if self._stops:
            raise self._stops[0]

    @property
    def count(self) -> float:
        """Return how many units are done, including those of tracked loops."""
        return self.done + sum(counter() for counter in self._counters) if self._counters else self.done

    @property
    def fraction(self) -> float:
        """Return how far the stage is, from 0 to 1."""
        if self.ended_at is not None:
            return 1.0
        if self.total:
            return min(1.0, self.count / self.total)
        return estimate(self.children, {}).fraction

    @property
    def is_open(self) -> bool:
        """Return whether the stage is in progress."""
        return self.ended_at is None

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
        if self.total is not None:
            shown["total"] = self.total
        if self.parent is not None:
            shown["parent"] = self.parent.name
        if self.ended_at is not None:
            shown["ended_at"] = self.ended_at
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


def now_text() -> str:
    """Return the time, as stages hold it."""
    return datetime.now(UTC).isoformat()


log = logging.getLogger("milepost.run")

ROUNDING = 1e-6


class ProgressMixin:
    """The part of a `Run` that reports progress."""

    job_id: str
    _secret_values: tuple[str, ...]
    _stop_reasons: list[RunStop]
    _plan: Mapping[str, float]
    _stages: list[LiveStage]
    _message: str | None
    _fraction: float
    _reached: float

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """Report how far the run is (from 0 to 1, never back) and what it does. A cancellation point.

        Raises InvalidInputError for more than 1, which is a percentage and not a fraction. A value that is not a number is
        logged and ignored.
        """
        if fraction is not None:
            if isinstance(fraction, int | float) and fraction > 1.0 + ROUNDING:
                raise InvalidInputError(
                    "progress", f"{fraction!r:.40} must be a fraction from 0 to 1; did you mean {fraction / 100:g}?"
                )
            if isinstance(fraction, int | float) and not isinstance(fraction, bool) and fraction == fraction:
                self._fraction = max(self._fraction, min(1.0, float(fraction)))
            else:
                log.warning("job %s: progress(%r) is not a number from 0 to 1; ignored", self.job_id, fraction)
        if message is not None:
            self._message = masked_line(message, self._secret_values)
        if self._stop_reasons:
            raise self._stop_reasons[0]

    def plan(self, *stages: str | tuple[str, float]) -> None:
        """Name all stages of the run beforehand, with their shares of the time where these differ.

        ``run.plan("Load", ("Embed", 9), "Persist")``: embedding takes nine times as long as either of the others. Until
        its stages are known, a run of several stages has no percentage.
        """
        named = [stage if isinstance(stage, tuple) else (stage, 1.0) for stage in stages]
        for name, weight in named:
            if not isinstance(name, str) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
                raise InvalidInputError(
                    "plan", f"{(name, weight)!r:.80} must be a name, or a name and a weight above 0"
                )
        self._plan = {masked(name, self._secret_values): float(weight) for name, weight in named}

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
