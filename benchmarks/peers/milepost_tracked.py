"""The task of `celery` under `@tracked`, with everything else as it is there."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import celery


def application(url: str) -> Any:
    """Return the application and its task."""
    from milepost import Jobs
    from milepost.integrations.celery import CeleryTaskQueue, tracked

    app = celery.application(url)
    tracked(app.tasks["noop"], jobs=Jobs(url, task_queue=CeleryTaskQueue(app)))
    return app


class Connected(celery.Connected):
    """Submits by `delay`, as there."""

    def __init__(self, url: str) -> None:
        self._task = application(url).tasks["noop"]


connect = Connected


def work(url: str) -> None:
    """Run the same worker as the peer `celery`."""
    celery.run(application(url))
