"""A Taskiq broker with the handlers of the suite."""

from __future__ import annotations

import os

from taskiq_redis import ListQueueBroker

from milepost import Jobs
from milepost.engines.taskiq import TaskiqEngine
from tests.engines.work import register

# With the time limit that redis-py has by itself, a worker that waits for messages ends after a few seconds without one.
broker = ListQueueBroker(os.environ["ENGINE_BROKER"], socket_timeout=None)
engine = TaskiqEngine(broker, lost_after=float(os.environ["ENGINE_LOST_AFTER"]))
jobs = Jobs(engine=engine)
register(jobs)
