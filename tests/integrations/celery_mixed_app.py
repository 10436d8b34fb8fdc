"""A Celery application with a tracked task that names no Jobs, and with handlers of a Jobs."""

from __future__ import annotations

import os

import celery

from milepost import Jobs, Run
from milepost.integrations.celery import CeleryTaskQueue, tracked

app = celery.Celery("mixed", broker=os.environ["TEST_BROKER"])
app.conf.update(broker_connection_retry_on_startup=True)


if os.environ.get("TEST_JOBS_FIRST"):
    jobs = Jobs(task_queue=CeleryTaskQueue(app))


@tracked
@app.task(name="shop.embed")
def embed(pages: int) -> int:
    """Return the number of pages."""
    return pages


if not os.environ.get("TEST_JOBS_FIRST"):
    jobs = Jobs(task_queue=CeleryTaskQueue(app))


@jobs.job("count")
def count(run: Run, number: int) -> int:
    """Return a number."""
    return number
