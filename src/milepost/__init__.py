"""milepost: run and watch long work. The public names, nothing else; each is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.app import AsyncJobs as AsyncJobs
    from milepost.app import Jobs as Jobs
    from milepost.client import AsyncClient as AsyncClient
    from milepost.client import Client as Client
    from milepost.core.errors import DuplicateJob as DuplicateJob
    from milepost.core.errors import IllegalTransition as IllegalTransition
    from milepost.core.errors import InvalidInput as InvalidInput
    from milepost.core.errors import JobCancelled as JobCancelled
    from milepost.core.errors import JobIsLeased as JobIsLeased
    from milepost.core.errors import JobNotFound as JobNotFound
    from milepost.core.errors import JobReleased as JobReleased
    from milepost.core.errors import JobTimedOut as JobTimedOut
    from milepost.core.errors import LeaseLost as LeaseLost
    from milepost.core.errors import MilepostError as MilepostError
    from milepost.core.errors import OutcomeUnknown as OutcomeUnknown
    from milepost.core.errors import Retry as Retry
    from milepost.core.errors import StoreUnavailable as StoreUnavailable
    from milepost.core.errors import UnknownJobType as UnknownJobType
    from milepost.core.errors import WaitTimeout as WaitTimeout
    from milepost.core.events import Event as Event
    from milepost.core.job import Failure as Failure
    from milepost.core.job import ItemCounts as ItemCounts
    from milepost.core.job import Job as Job
    from milepost.core.job import JobStatus as JobStatus
    from milepost.core.job import Receipt as Receipt
    from milepost.core.job import Stage as Stage
    from milepost.manager.asynchronous import AsyncJobManager as AsyncJobManager
    from milepost.manager.synchronous import InMemoryJobManager as InMemoryJobManager
    from milepost.manager.synchronous import JobManager as JobManager
    from milepost.manager.synchronous import RedisJobManager as RedisJobManager
    from milepost.manager.synchronous import SQLiteJobManager as SQLiteJobManager
    from milepost.manager.synchronous import get_job_manager as get_job_manager
    from milepost.settings import Settings as Settings
    from milepost.tracking.run import Run as Run
    from milepost.worker.readers import Secret as Secret

__version__ = "0.1.0"

_HOMES = {
    "client": ("AsyncClient", "Client"),
    "app": ("AsyncJobs", "Jobs"),
    "core.errors": (
        "DuplicateJob",
        "IllegalTransition",
        "InvalidInput",
        "JobCancelled",
        "JobIsLeased",
        "JobNotFound",
        "JobReleased",
        "JobTimedOut",
        "LeaseLost",
        "MilepostError",
        "OutcomeUnknown",
        "Retry",
        "StoreUnavailable",
        "UnknownJobType",
        "WaitTimeout",
    ),
    "core.events": ("Event",),
    "core.job": ("Failure", "ItemCounts", "Job", "JobStatus", "Receipt", "Stage"),
    "manager.asynchronous": ("AsyncJobManager",),
    "manager.synchronous": (
        "InMemoryJobManager",
        "JobManager",
        "RedisJobManager",
        "SQLiteJobManager",
        "get_job_manager",
    ),
    "settings": ("Settings",),
    "tracking.run": ("Run",),
    "worker.readers": ("Secret",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604 - the names of the table above are all text


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'milepost' has no attribute {name!r}")
    value = getattr(import_module(f"milepost.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
