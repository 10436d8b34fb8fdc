"""`current_run()`: the run of the job that the calling code is part of."""

from __future__ import annotations

from milepost.core.job import Job
from milepost.run import context
from milepost.run.run import Run


def current_run() -> Run:
    """Return the run of the job that the calling code belongs to; outside of a job, one that reports nothing."""
    run = context.current()
    return (
        run
        if run is not None
        else Run(Job.stored("none", {"type": "none", "progress": "0"}), "0:none", _DiscardingCheckpointWriter())
    )


class _DiscardingCheckpointWriter:
    """Discards the checkpoints of code that is called as a plain function."""

    def checkpoint(self, run: Run, text: str) -> None:
        """Do nothing."""

    async def acheckpoint(self, run: Run, text: str) -> None:
        """Do nothing."""

    def read(self, run: Run, key: str) -> str | None:
        """Return None."""
        return None

    async def aread(self, run: Run, key: str) -> str | None:
        """Return None."""
        return None
