"""An application on a Ray cluster with the handlers of the suite."""

from __future__ import annotations

import os
import time

from milepost import Jobs, Run
from milepost.integrations.ray import RayTaskQueue
from tests.integrations.sample_handlers import note, register

NAMES = ("TEST_BROKER", "TEST_LOG", "TEST_LOST_AFTER", "PYTHONPATH")
environment = {name: value for name, value in os.environ.items() if name in NAMES or name.startswith("MILEPOST_")}
task_queue = RayTaskQueue(
    os.environ["TEST_BROKER"],
    "tests.integrations.ray_app:jobs",
    runtime_env={"env_vars": environment},
    lost_after=float(os.environ["TEST_LOST_AFTER"]),
)
jobs = Jobs(task_queue=task_queue)
register(jobs)


@jobs.job("asleep")
def asleep(run: Run) -> None:
    """Sleep in C, where no exception arrives."""
    note(f"asleep {os.getpid()}")
    time.sleep(600)
