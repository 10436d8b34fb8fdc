"""A Dramatiq broker with the handlers of the suite."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from milepost import Jobs
from milepost.engines.dramatiq import DramatiqEngine
from tests.engines.work import register

broker = RedisBroker(url=os.environ["ENGINE_BROKER"])
dramatiq.set_broker(broker)
engine = DramatiqEngine(broker, lost_after=float(os.environ["ENGINE_LOST_AFTER"]))
jobs = Jobs(engine=engine)
register(jobs)
