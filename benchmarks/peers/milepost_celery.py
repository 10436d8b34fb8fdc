"""Jobs of milepost on Celery's workers, by `CeleryEngine`: the broker's settings are those of `celery`."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import celery
from benchmarks.ticks import tick


def application(url: str) -> tuple[Any, Any, Any]:
    """The Celery application, milepost's and its job."""
    from milepost import Jobs, Run
    from milepost.engines.celery import CeleryEngine

    app = celery.application(url)
    jobs = Jobs(url, engine=CeleryEngine(app))

    @jobs.job("noop_job")
    def noop(run: Run) -> int:
        return tick()

    return app, jobs, noop


class Connected:
    """Submits by `submit`."""

    def __init__(self, url: str) -> None:
        _, self._jobs, self._job = application(url)

    async def submit(self) -> None:
        """One job."""
        self._jobs.submit(self._job)


connect = Connected


def work(url: str) -> None:
    """The same worker as that of `celery`."""
    celery.run(application(url)[0])
