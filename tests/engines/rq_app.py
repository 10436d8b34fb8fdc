"""An RQ queue with the handlers of the suite."""

from __future__ import annotations

import os

import redis
import rq

from milepost import Jobs
from milepost.engines import rq as rq_engine
from tests.engines.work import register

queue = rq.Queue("engines", connection=redis.Redis.from_url(os.environ["ENGINE_BROKER"]))
engine = rq_engine.RQEngine(queue, "tests.engines.rq_app:jobs", lost_after=float(os.environ["ENGINE_LOST_AFTER"]))
jobs = Jobs(engine=engine)
register(jobs)


class Worker(rq_engine.Worker):
    """A worker that knows the application from its start."""

    app = "tests.engines.rq_app:jobs"
