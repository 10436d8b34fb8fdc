"""A Run for tests of job code: no store, no worker, no clock. Owns what a test looks at afterwards; everything else is Run's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from milepost.core.encoding import from_json, labels_text, to_json
from milepost.core.errors import JobCancelled
from milepost.core.job import Job
from milepost.tracking.run import Run


class FakeRun(Run):
    """A Run whose checkpoints are kept in `checkpoints`, and whose progress can be looked at as `progress_seen`."""

    def __init__(self, job: Job, *, only: Iterable[str] | None = None) -> None:
        self.checkpoints: list[Any] = []
        self._seen: list[float] = []
        super().__init__(job, "1:fake", _Kept(), only=only)

    @property
    def progress_seen(self) -> list[float]:
        """The fractions that the code has reported, and the one that it has reached now, last."""
        return [*self._seen, self.fraction]

    @property
    def log_lines(self) -> list[str]:
        """The newest log lines."""
        return list(self.recent_log)

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """As Run.progress; a fraction is written down."""
        super().progress(fraction, message)
        if fraction is not None:
            self._seen.append(self.fraction)

    def cancel(self, reason: str = "cancelled by the test") -> None:
        """Tell the code to stop, as a cancel of the job would."""
        self.stop(JobCancelled(reason))


class _Kept:
    """Keeps checkpoints where the test finds them."""

    def checkpoint(self, run: Run, text: str) -> None:
        assert isinstance(run, FakeRun), "made by fake_run"
        run.checkpoints.append(from_json(text))
        run._seen.append(run.fraction)

    async def acheckpoint(self, run: Run, text: str) -> None:
        self.checkpoint(run, text)


def fake_run(
    *,
    job_type: str = "test",
    job_id: str = "fake",
    attempt: int = 1,
    last_checkpoint: Any = None,
    metadata: Mapping[str, Any] | None = None,
    labels: Mapping[str, str] | None = None,
    only: Iterable[str] | None = None,
) -> FakeRun:
    """A Run to hand to job code in a test: ``reindex(fake_run(last_checkpoint=40), index="docs")``.

    `only` are the keys of the items that are to be done, as after ``retry_job(only_failed=True)``.
    """
    record = {
        "type": job_type,
        "status": "running",
        "progress": "0",
        "attempt": str(attempt),
        "created": "0",
        "metadata": to_json(dict(metadata or {}), "metadata"),
        "labels": labels_text(labels),
    }
    if last_checkpoint is not None:
        record["checkpoint"] = to_json(last_checkpoint, "last_checkpoint")
    return FakeRun(Job.stored(job_id, record), only=only)
