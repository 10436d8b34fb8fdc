"""A real Run without a pulse, which a test can look into at every cancel point and stop there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from milepost import InMemoryJobManager
from milepost.core.errors import JobCancelled, Stop
from milepost.core.job import Job
from milepost.tracking.run import Run
from milepost.tracking.stages import LiveStage


class WatchedRun(Run):
    """Calls `watch(run)` wherever the job looks whether it was cancelled; remembers what the job said."""

    def __init__(self, watch: Callable[[WatchedRun], object] | None = None) -> None:
        job: Job = InMemoryJobManager().create_job(job_type="documents")
        super().__init__(job, "1:00", _NoStore())
        self.watch = watch
        self.stops = _Watched(self)
        self.progress_seen: list[float] = []
        self.messages: list[str] = []
        self.logged: list[str] = []
        self.checkpoints: list[Any] = []

    def cancel(self) -> None:
        self.stop(JobCancelled("cancelled by the test"))

    @property
    def stages(self) -> list[LiveStage]:
        return self._stages

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        if message is not None:
            self.messages.append(message)
        super().progress(fraction, message)

    def checkpoint(self, value: Any) -> None:
        self.checkpoints.append(value)
        super().checkpoint(value)

    def log(self, text: str, level: str = "info") -> None:
        self.logged.append(text)
        super().log(text, level)


class _Watched(list[Stop]):
    """The reasons to stop; asking whether there are any is what a cancel point is."""

    def __init__(self, run: WatchedRun) -> None:
        super().__init__()
        self._run = run
        self._watching = False

    def __bool__(self) -> bool:
        if not self._watching:
            self._watching = True
            try:
                self._run.progress_seen.append(self._run.fraction)
                if self._run.watch is not None:
                    self._run.watch(self._run)
            finally:
                self._watching = False
        return len(self) > 0


class _NoStore:
    """A link that takes every checkpoint."""

    def checkpoint(self, run: Run, text: str) -> None:
        pass

    async def acheckpoint(self, run: Run, text: str) -> None:
        pass
