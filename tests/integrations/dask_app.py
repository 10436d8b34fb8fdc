"""An application on a Dask cluster with the handlers of the suite."""

from __future__ import annotations

import os

from milepost import Jobs
from milepost.integrations.dask import DaskTaskQueue
from tests.integrations.sample_handlers import register

task_queue = DaskTaskQueue(
    os.environ["TEST_BROKER"], "tests.integrations.dask_app:jobs", lost_after=float(os.environ["TEST_LOST_AFTER"])
)
jobs = Jobs(task_queue=task_queue)
register(jobs)
