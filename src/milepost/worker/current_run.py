"""`current_run()`: the run of the job that the calling code is part of."""

from __future__ import annotations

from milepost.core.job import Job
from milepost.run import context
from milepost.run.checkpoints import CheckpointWriter
from milepost.run.run import Run


def current_run() -> Run:
    """Return the run of the job that the calling code belongs to; outside of a job, one that reports nothing."""
    run = context.current()
    return (
        run
        if run is not None
        else Run(Job.stored("none", {"type": "none", "progress": "0"}), "0:none", CheckpointWriter())
    )
