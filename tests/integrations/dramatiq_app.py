"""A Dramatiq broker with the handlers of the suite."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from milepost import Jobs
from milepost.integrations.dramatiq import DramatiqTaskQueue
from tests.integrations.sample_handlers import register

broker = RedisBroker(url=os.environ["TEST_BROKER"])
dramatiq.set_broker(broker)
task_queue = DramatiqTaskQueue(broker, lost_after=float(os.environ["TEST_LOST_AFTER"]))
jobs = Jobs(task_queue=task_queue)
register(jobs)
