"""Run jobs on an existing task queue: `celery`, `rq`, `dramatiq`, `taskiq`, one module each.

A module maps messages, workers and stops of its task queue; dispatch and execution are in `milepost.worker`.
`current_run()` returns the run of the calling code.
"""

from milepost.worker.current_run import current_run
from milepost.worker.dispatcher import TaskQueue, TaskQueueUnavailableError

__all__ = ["TaskQueue", "TaskQueueUnavailableError", "current_run"]
