"""Who runs jobs: handlers, execution, the claim loop."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.worker.hosting import run_worker as run_worker
    from milepost.worker.loop import Worker as Worker

_HOME_OF = {"run_worker": "hosting", "Worker": "loop"}
__all__ = ["Worker", "run_worker"]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'milepost.worker' has no attribute {name!r}")
    return getattr(import_module(f"milepost.worker.{home}"), name)
