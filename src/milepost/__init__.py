"""milepost: run and watch long-running jobs. Each public name is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.app import AsyncJobs as AsyncJobs
    from milepost.app import Jobs as Jobs
    from milepost.client import AsyncClient as AsyncClient
    from milepost.client import Client as Client
    from milepost.core.errors import AlreadyAnsweredError as AlreadyAnsweredError
    from milepost.core.errors import BudgetExceededError as BudgetExceededError
    from milepost.core.errors import DuplicateJobError as DuplicateJobError
    from milepost.core.errors import Fail as Fail
    from milepost.core.errors import IllegalTransitionError as IllegalTransitionError
    from milepost.core.errors import InputChangedError as InputChangedError
    from milepost.core.errors import InvalidInputError as InvalidInputError
    from milepost.core.errors import JobCancelled as JobCancelled
    from milepost.core.errors import JobNotFoundError as JobNotFoundError
    from milepost.core.errors import JobPaused as JobPaused
    from milepost.core.errors import JobReleased as JobReleased
    from milepost.core.errors import JobSuspended as JobSuspended
    from milepost.core.errors import JobTimedOut as JobTimedOut
    from milepost.core.errors import LeaseHeldError as LeaseHeldError
    from milepost.core.errors import LeaseLost as LeaseLost
    from milepost.core.errors import MilepostError as MilepostError
    from milepost.core.errors import OutcomeUnknownError as OutcomeUnknownError
    from milepost.core.errors import QuestionExpiredError as QuestionExpiredError
    from milepost.core.errors import RejectedError as RejectedError
    from milepost.core.errors import ResultNotSerialisableError as ResultNotSerialisableError
    from milepost.core.errors import Retry as Retry
    from milepost.core.errors import ScheduleNotFoundError as ScheduleNotFoundError
    from milepost.core.errors import Snooze as Snooze
    from milepost.core.errors import StoreUnavailableError as StoreUnavailableError
    from milepost.core.errors import TooManyRequestsError as TooManyRequestsError
    from milepost.core.errors import UnknownJobTypeError as UnknownJobTypeError
    from milepost.core.errors import WaitTimeoutError as WaitTimeoutError
    from milepost.core.events import Event as Event
    from milepost.core.job import Failure as Failure
    from milepost.core.job import ItemCounts as ItemCounts
    from milepost.core.job import Job as Job
    from milepost.core.job import JobStatus as JobStatus
    from milepost.core.job import Receipt as Receipt
    from milepost.core.job import Stage as Stage
    from milepost.core.schedule import Schedule as Schedule
    from milepost.core.values import LargeValue as LargeValue
    from milepost.manager.manager import AsyncJobManager as AsyncJobManager
    from milepost.manager.sync import InMemoryJobManager as InMemoryJobManager
    from milepost.manager.sync import JobManager as JobManager
    from milepost.manager.sync import RedisJobManager as RedisJobManager
    from milepost.manager.sync import SQLiteJobManager as SQLiteJobManager
    from milepost.manager.sync import get_job_manager as get_job_manager
    from milepost.run.async_run import AsyncRun as AsyncRun
    from milepost.run.retry_rules import Backoff as Backoff
    from milepost.run.run import Run as Run
    from milepost.run.scalar_types import Secret as Secret
    from milepost.settings import Settings as Settings

__version__ = "0.1.0"

_HOMES = {
    "client": ("AsyncClient", "Client"),
    "app": ("AsyncJobs", "Jobs"),
    "core.errors": (
        "AlreadyAnsweredError",
        "DuplicateJobError",
        "IllegalTransitionError",
        "InputChangedError",
        "InvalidInputError",
        "JobCancelled",
        "LeaseHeldError",
        "JobNotFoundError",
        "JobPaused",
        "JobReleased",
        "JobSuspended",
        "JobTimedOut",
        "LeaseLost",
        "MilepostError",
        "OutcomeUnknownError",
        "BudgetExceededError",
        "QuestionExpiredError",
        "Fail",
        "RejectedError",
        "ResultNotSerialisableError",
        "Retry",
        "ScheduleNotFoundError",
        "Snooze",
        "StoreUnavailableError",
        "TooManyRequestsError",
        "UnknownJobTypeError",
        "WaitTimeoutError",
    ),
    "core.events": ("Event",),
    "core.job": ("Failure", "ItemCounts", "Job", "JobStatus", "Receipt", "Stage"),
    "core.schedule": ("Schedule",),
    "core.values": ("LargeValue",),
    "manager.manager": ("AsyncJobManager",),
    "manager.sync": (
        "InMemoryJobManager",
        "JobManager",
        "RedisJobManager",
        "SQLiteJobManager",
        "get_job_manager",
    ),
    "settings": ("Settings",),
    "run.retry_rules": ("Backoff",),
    "run.async_run": ("AsyncRun",),
    "run.run": ("Run",),
    "run.scalar_types": ("Secret",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_OPTIONAL = frozenset(_HOMES["client"])
"""The names that need an extra. `from milepost import *` works without it."""
__all__ = ["__version__", *sorted(_HOME_OF.keys() - _OPTIONAL)]  # noqa: PLE0604 - the names of the table above are all text


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'milepost' has no attribute {name!r}")
    value = getattr(import_module(f"milepost.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_OPTIONAL])
