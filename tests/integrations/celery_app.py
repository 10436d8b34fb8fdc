"""A Celery application with the handlers of the suite, and with tasks that were there before milepost."""

from __future__ import annotations

import os
import time
from typing import Any

import celery

from milepost import Jobs
from milepost.integrations import current_run
from milepost.integrations.celery import CeleryTaskQueue, tracked
from tests.integrations.sample_handlers import note, register

app = celery.Celery("engines", broker=os.environ["TEST_BROKER"], backend=os.environ.get("TEST_RESULTS"))
app.conf.update(
    broker_transport_options={
        "visibility_timeout": float(os.environ.get("TEST_VISIBILITY", "3600")),
        "unacked_restore_interval": 1,  # how often workers look for messages past it; by default every 100 s
        "unacked_restore_throttle": 1,
    },
    task_default_queue=os.environ.get("TEST_QUEUE", "celery"),
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
)
task_queue = CeleryTaskQueue(app, lost_after=float(os.environ.get("TEST_LOST_AFTER", "3600")))
jobs = Jobs(task_queue=task_queue)
register(jobs)


@app.task(name="bare.long")
def bare_long(seconds: float) -> float:
    """Run long, as a plain Celery task."""
    note(f"bare {os.getpid()}")
    time.sleep(seconds)
    return seconds


@tracked(jobs=jobs)
@app.task(name="shop.long")
def long(seconds: float) -> float:
    """Run long, under @tracked."""
    note(f"tracked {os.getpid()}")
    time.sleep(seconds)
    return seconds


@tracked(jobs=jobs)
@app.task(name="shop.embed", bind=True)
def embed(self: Any, pages: int, pause: float = 0.02) -> int:
    """Report progress."""
    note(f"embed {self.request.id}")
    for _ in current_run().each(range(pages)):
        time.sleep(pause)
    return pages


@tracked(jobs=jobs)
@app.task(
    name="shop.flaky", autoretry_for=(ConnectionError,), retry_backoff=False, default_retry_delay=1, max_retries=5
)
def flaky() -> str:
    """Celery itself tries it again."""
    attempt = current_run().attempt
    note(f"flaky {attempt}")
    if attempt < 3:
        raise ConnectionError("not yet")
    return "at last"


@tracked(jobs=jobs)
@app.task(name="shop.later", bind=True)
def later(self: Any) -> None:
    """Try again in an hour."""
    raise self.retry(countdown=3600)


@tracked(jobs=jobs)
@app.task(name="shop.broken")
def broken() -> None:
    """Fail; the task is not retried."""
    note("broken")
    raise ValueError("no such shop")
