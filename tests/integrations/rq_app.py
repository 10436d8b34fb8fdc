"""An RQ queue with the handlers of the suite."""

from __future__ import annotations

import os

import redis
import rq

from milepost import Jobs
from milepost.integrations import rq as rq_queue
from tests.integrations.sample_handlers import register

queue = rq.Queue("engines", connection=redis.Redis.from_url(os.environ["TEST_BROKER"]))
task_queue = rq_queue.RQTaskQueue(
    queue, "tests.integrations.rq_app:jobs", lost_after=float(os.environ["TEST_LOST_AFTER"])
)
jobs = Jobs(task_queue=task_queue)
register(jobs)


class Worker(rq_queue.Worker):
    """A worker that knows the application from its start."""

    app = "tests.integrations.rq_app:jobs"
