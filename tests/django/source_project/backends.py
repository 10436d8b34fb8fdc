"""milepost's backend with what Django's tests expect of its dummy and its immediate backend. The URL is in MILEPOST_URL."""

import time
from typing import Any

from milepost.django import Backend

PATIENCE = 60


class WaitingBackend(Backend):
    """No worker runs the tasks, as with the dummy backend."""

    @property
    def results(self) -> list[Any]:
        """Return the results of all tasks, oldest first."""
        return [self.get_result(job.job_id) for job in reversed(self.jobs.find(limit=100).jobs)]

    def clear(self) -> None:
        """Delete all tasks."""
        for job in self.jobs.find(limit=100).jobs:
            self.jobs.delete_job(job.job_id)


class FinishingBackend(Backend):
    """Enqueue returns when a worker has run the task, as with the immediate backend."""

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Enqueue a task, and run it."""
        result = super().enqueue(task, args, kwargs)
        end = time.monotonic() + PATIENCE
        with self.jobs.run_workers(queues=[task.queue_name]):
            while not result.is_finished:
                assert time.monotonic() < end
                result.refresh()
        return result
