"""An application whose handlers have hooks, for worker processes; they write to the log of the test."""

from __future__ import annotations

import os
import time
from pathlib import Path

from milepost import Job, Jobs, Run
from tests.worker.application import note

jobs = Jobs()


def on_completed(job: Job) -> None:
    """Note the end."""
    note(f"completed {job.job_id} {os.getpid()}")


def on_failed(job: Job) -> None:
    """Note the end."""
    note(f"failed {job.job_id} {os.getpid()}")


@jobs.job("hooked-isolated", isolation="process", on_completed=on_completed, on_failed=on_failed)
def hooked_isolated(run: Run, error: str = "") -> None:
    """Run in a child process."""
    note(f"ran {run.job_id} {os.getpid()}")
    if error:
        raise ValueError(error)


@jobs.job("hooked-waits", on_completed=on_completed, on_failed=on_failed)
def hooked_waits(run: Run) -> None:
    """Wait until the test says go."""
    note(f"waits {run.job_id} {os.getpid()}")
    while not (Path(os.environ["WORKER_LOG"]).parent / "go").exists():
        run.check()
        time.sleep(0.01)
