"""Celery: its Redis broker and result backend, late acknowledgement off, without gossip, mingle and heartbeat."""

from __future__ import annotations

from typing import Any

from benchmarks.job_ticks import tick


def application(url: str) -> Any:
    """Return the application and its task."""
    import celery

    app = celery.Celery("bench", broker=url, backend=url)
    app.conf.update(
        worker_prefetch_multiplier=64, worker_hijack_root_logger=False, broker_connection_retry_on_startup=True
    )
    app.task(name="noop")(tick)
    return app


class Connected:
    """Submits by `delay`; Celery has no call for many."""

    def __init__(self, url: str) -> None:
        self._task = application(url).tasks["noop"]

    async def submit(self) -> None:
        """Submit one task."""
        self._task.delay()


connect = Connected


def work(url: str) -> None:
    """Run one worker."""
    run(application(url))


def run(app: Any) -> None:
    """Run the solo pool, which is the fastest one for tasks that do nothing."""
    options = ["--pool=solo", "--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", *options])
