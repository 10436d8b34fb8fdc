"""A real Run without a heartbeat, which a test can inspect and stop at every cancellation point."""

from __future__ import annotations

from collections.abc import Callable

from milepost import InMemoryJobManager
from milepost.core.errors import JobCancelled, RunStop
from milepost.core.job import Job
from milepost.run.run import Run
from milepost.run.stages import LiveStage


class WatchedRun(Run):
    """Calls `watch(run)` at every cancellation point, and records what the job reported."""

    def __init__(
        self, watch: Callable[[WatchedRun], object] | None = None, *, labels: dict[str, str] | None = None
    ) -> None:
        job: Job = InMemoryJobManager().create_job(job_type="documents", labels=labels)
        super().__init__(job, "1:00", _NoStore())
        self.watch = watch
        self._stop_reasons = _Watched(self)
        self.progress_seen: list[float] = []
        self.messages: list[str] = []
        self.logged: list[str] = []

    def cancel(self) -> None:
        self.stop(JobCancelled("cancelled by the test"))

    @property
    def stages(self) -> list[LiveStage]:
        return self._stages

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        if message is not None:
            self.messages.append(message)
        super().progress(fraction, message)

    def log(self, text: str, level: str = "info") -> None:
        self.logged.append(text)
        super().log(text, level)


class _Watched(list[RunStop]):
    """The stop reasons; reading them is a cancellation point."""

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
    """A store link that accepts every checkpoint."""

    def checkpoint(self, run: Run, text: str) -> None:
        pass

    async def acheckpoint(self, run: Run, text: str) -> None:
        pass
