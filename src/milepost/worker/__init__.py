"""Running jobs: handlers, workers and their executions, and dispatch to external task queues."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.worker.event_loop import RunExecutor as RunExecutor
    from milepost.worker.worker import Worker as Worker
    from milepost.worker.worker import run_worker as run_worker

_HOME_OF = {"RunExecutor": "event_loop", "run_worker": "worker", "Worker": "worker"}
__all__ = ["RunExecutor", "Worker", "run_worker"]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'milepost.worker' has no attribute {name!r}")
    return getattr(import_module(f"milepost.worker.{home}"), name)
