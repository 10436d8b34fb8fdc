"""A Taskiq broker with the handlers of the suite."""

from __future__ import annotations

import os

from taskiq_redis import ListQueueBroker

from milepost import Jobs
from milepost.integrations.taskiq import TaskiqTaskQueue
from tests.integrations.sample_handlers import register

# With the time limit that redis-py has by itself, a worker that waits for messages ends after a few seconds without one.
broker = ListQueueBroker(os.environ["TEST_BROKER"], socket_timeout=None)
task_queue = TaskiqTaskQueue(broker, lost_after=float(os.environ["TEST_LOST_AFTER"]))
jobs = Jobs(task_queue=task_queue)
register(jobs)
