"""Jobs of milepost on Celery's workers, by `CeleryTaskQueue`: the broker's settings are those of `celery`."""

from __future__ import annotations

from typing import Any

from benchmarks.job_ticks import tick
from benchmarks.peers import celery


def application(url: str) -> tuple[Any, Any, Any]:
    """Return the Celery application, the one of milepost, and its job."""
    from milepost import Jobs, Run
    from milepost.integrations.celery import CeleryTaskQueue

    app = celery.application(url)
    jobs = Jobs(url, task_queue=CeleryTaskQueue(app))

    @jobs.job("noop_job")
    def noop(run: Run) -> int:
        return tick()

    return app, jobs, noop


class Connected:
    """Submits by `submit`."""

    def __init__(self, url: str) -> None:
        _, self._jobs, self._job = application(url)

    async def submit(self) -> None:
        """Submit one job."""
        self._jobs.submit(self._job)


connect = Connected


def work(url: str) -> None:
    """Run the same worker as the peer `celery`."""
    celery.run(application(url)[0])
