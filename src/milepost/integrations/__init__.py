"""Run jobs on an existing task queue: `celery`, `rq`, `dramatiq`, `taskiq`, `dask`, `ray`, one module each.

A module maps messages, workers and stops of its task queue; dispatch and execution are in `milepost.worker`.
`task_queue("celery")` returns its class by the name under which it is registered. `current_run()` returns the run of the
calling code.
"""

from typing import Any

from milepost import plugins
from milepost.core.errors import InvalidInputError
from milepost.run.run import current_run
from milepost.worker.dispatcher import TaskQueue, TaskQueueUnavailableError

__all__ = ["TaskQueue", "TaskQueueUnavailableError", "current_run", "task_queue"]


def task_queue(name: str) -> Any:
    """Return the TaskQueue class of an integration, a plugin in the group `milepost.integrations`.

    Raises InvalidInputError with the known names, MissingExtraError and PluginError.
    """
    plugin = plugins.find("milepost.integrations", name)
    if plugin is None:
        known = ", ".join(plugins.names("milepost.integrations"))
        raise InvalidInputError("task_queue", f"unknown task queue {name!r}; available: {known}")
    return plugin.load()
