"""How far a run is: what its code reports, its plan, and what its stages add up to."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from milepost.core.errors import InvalidInputError, RunStop
from milepost.run.crash_report import masked, masked_line
from milepost.run.stages import RUNNING_MOST, Estimate, LiveStage, estimate

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
    def shown_fraction(self) -> float:
        """`fraction` for display: 1 only if the code reported it or the job has completed."""
        return max(self._fraction, min(RUNNING_MOST, self.fraction))

    @property
    def progress_known(self) -> bool:
        """Whether `fraction` includes all stages that follow; see `plan`."""
        return self._fraction > 0 or self._estimate().is_known

    def _estimate(self) -> Estimate:
        return estimate(self._stages, self._plan)
