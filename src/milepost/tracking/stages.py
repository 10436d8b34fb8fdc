"""The stages of a run and the fraction that they add up to. Owns the arithmetic of progress; knows no store.

Everything here only writes to memory. Several threads may advance one stage; counts are then exact under the GIL only
for whole numbers added by one thread at a time, which is what a bar needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from milepost.core.encoding import one_line
from milepost.core.errors import Stop


class LiveStage:
    """A part of a run: ``with run.stage("Embedding", weight=9, total=412, unit="chunk") as stage``."""

    captured = False
    """Whether this is a bar of somebody else's; those speak for the run only where it says nothing itself."""

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
        stops: list[Stop],
        leave: Callable[[LiveStage], None],
    ) -> None:
        self.name = one_line(name, 200)
        self.weight = weight
        self.total = total
        self.unit = unit
        self.parent = parent
        self.done: float = 0
        self.children: list[LiveStage] = []
        self.started_at = _now()
        self.ended_at: str | None = None
        self._stops = stops
        self._leave = leave
        self._counters: list[Callable[[], float]] = []

    def advance(self, n: float = 1) -> None:
        """Count `n` more units as done. Raises JobCancelled (or another Stop) when the run is to stop."""
        self.done += n
        if self._stops:
            raise self._stops[0]

    @property
    def count(self) -> float:
        """How many units are done, those of tracked loops included."""
        return self.done + sum(counter() for counter in self._counters) if self._counters else self.done

    @property
    def fraction(self) -> float:
        """How far the stage is, in [0, 1]."""
        if self.ended_at is not None:
            return 1.0
        if self.total:
            return min(1.0, self.count / self.total)
        return combined(self.children, {})

    @property
    def is_open(self) -> bool:
        """Whether it is being worked on."""
        return self.ended_at is None

    def hear(self, reason: Stop) -> None:
        """The run is to stop. A stage looks for that at each of its ticks, and need not be told."""

    def end(self) -> None:
        """Close the stage; leaving its `with` does so."""
        if self.ended_at is None:
            self.ended_at = _now()
            self._leave(self)

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
        """The stage as `core.job.Stage` reads it."""
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


def combined(stages: list[LiveStage], plan: Mapping[str, float]) -> float:
    """The fraction of the whole that some stages make, from their weights.

    A plan names all stages beforehand and is exact. Without one, the weights are shares of 1, of 10 or of 100,
    whichever is the least that holds those seen so far. Stages without weights take half of what is left, one after
    the other, since nobody knows how many will follow; a single tracked loop outside any stage is the whole.
    """
    if not stages:
        return 0.0
    stages = [stage for stage in stages if not stage.captured] or ([] if plan else stages)
    if plan:
        known = {stage.name: stage for stage in stages}
        extra = sum(_weight(stage) for name, stage in known.items() if name not in plan)
        whole = sum(plan.values()) + extra
        made = sum(plan.get(name, _weight(stage)) * stage.fraction for name, stage in known.items())
        return min(1.0, made / whole) if whole > 0 else 0.0
    if all(stage.weight is None for stage in stages):
        made, left = 0.0, 1.0
        for stage in stages:
            share = left if stage.name == LOOP else left / 2
            made, left = made + share * stage.fraction, left - share
        return min(1.0, made)
    seen = sum(_weight(stage) for stage in stages)
    whole = seen
    if seen <= 100.0001:
        whole = 100.0 if seen > 10.0001 else 10.0 if seen > 1.0001 or _weight(stages[0]) >= 1 else 1.0
    return min(1.0, sum(_weight(stage) * stage.fraction for stage in stages) / whole)


LOOP = "items"
"""The name of the stage that a tracked loop outside any stage makes."""


def every(stages: list[LiveStage]) -> Iterable[LiveStage]:
    """Yield stages with those inside of them, outer ones first."""
    for stage in stages:
        yield stage
        yield from every(stage.children)


def _weight(stage: LiveStage) -> float:
    return 1.0 if stage.weight is None else stage.weight


def _now() -> str:
    return datetime.now(UTC).isoformat()
