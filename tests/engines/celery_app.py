"""A Celery application with the handlers of the suite, and with tasks that were there before milepost."""

from __future__ import annotations

import os
import time
from typing import Any

import celery

from milepost import Jobs
from milepost.engines import current_run
from milepost.engines.celery import CeleryEngine, tracked
from tests.engines.work import note, register

app = celery.Celery("engines", broker=os.environ["ENGINE_BROKER"], backend=os.environ.get("ENGINE_RESULTS"))
app.conf.update(
    broker_transport_options={
        "visibility_timeout": float(os.environ.get("ENGINE_VISIBILITY", "3600")),
        "unacked_restore_interval": 1,  # how often workers look for messages past it; by default every 100 s
        "unacked_restore_throttle": 1,
    },
    task_default_queue=os.environ.get("ENGINE_QUEUE", "celery"),
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
)
engine = CeleryEngine(app, lost_after=float(os.environ.get("ENGINE_LOST_AFTER", "3600")))
jobs = Jobs(engine=engine)
register(jobs)


@app.task(name="bare.long")
def bare_long(seconds: float) -> float:
    """A long task as there are many."""
    note(f"bare {os.getpid()}")
    time.sleep(seconds)
    return seconds


@tracked(jobs=jobs)
@app.task(name="shop.long")
def long(seconds: float) -> float:
    """The same under @tracked."""
    note(f"tracked {os.getpid()}")
    time.sleep(seconds)
    return seconds


@tracked(jobs=jobs)
@app.task(name="shop.embed", bind=True)
def embed(self: Any, pages: int, pause: float = 0.02) -> int:
    """A task that reports its progress."""
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
@app.task(name="shop.broken")
def broken() -> None:
    """It fails, and nobody tries it again."""
    note("broken")
    raise ValueError("no such shop")
