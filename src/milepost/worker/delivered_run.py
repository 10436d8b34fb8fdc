"""The run of a job that an external task queue delivered."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from milepost.core.errors import RunStop
from milepost.run.run import Run


class DeliveredRun(Run):
    """A run that tells its execution when it is stopped, so that the task queue can end code that ignores the stop."""

    follow_up: Callable[[RunStop], None] | None = None

    @property
    def record(self) -> Mapping[str, str]:
        """Return the record as it was at the start."""
        return self._job.record

    def stop(self, reason: RunStop) -> None:
        """Tell the code to stop. The first reason wins."""
        first = not self._stop_reasons
        super().stop(reason)
        if first and self.follow_up is not None:
            self.follow_up(reason)
