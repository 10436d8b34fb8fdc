"""Every error that milepost raises on purpose. Owns their names and texts; knows no store and no transport.

::

    MilepostError
    +-- Refused (ValueError)           what a caller gave cannot be done; .job is the record as it is, or None
    |   +-- InvalidInput               a value is malformed: .field names it
    |   +-- JobNotFound                no record of that id
    |   +-- DuplicateJob               the id, or the unique key, is taken
    |   +-- IllegalTransition          the lifecycle has no such move
    |   +-- JobIsLeased                a run owns the record; only a cancel is accepted
    |   +-- UnknownJobType             no worker has published that type
    |   +-- IdempotencyConflict        the key was used with another body, or is still under way
    |   +-- FilterError                a filter that does not parse: .position points at the character
    +-- StoreError                     the store cannot answer
    |   +-- StoreUnavailable           not reachable, or it stays locked: nothing was written
    |   +-- StoreFull                  reachable, and refuses to grow
    |   +-- OutcomeUnknown             sent, no answer in time: it may or may not have been applied
    |   +-- LayoutMismatch             written by a release that this one cannot read
    +-- MissingExtra (ImportError)     an optional dependency is not installed; says which pip line brings it
    +-- WaitTimeout (TimeoutError)     wait() gave up before the job ended
    +-- Retry                          raised by a handler: try again after .delay seconds
    Stop (BaseException)               ends the code of a run; not an Exception, so `except Exception` lets it pass
    +-- JobCancelled                   somebody cancelled the job
    +-- JobReleased                    the worker shuts down; the job goes back, at no cost
    +-- LeaseLost                      another run owns the job now; nothing that this one writes is accepted
    +-- JobTimedOut                    the run's time limit has passed
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.core.job import Job


class MilepostError(Exception):
    """The root of what milepost raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (type(self), self.args), self.__dict__)


def _restored(kind: type[MilepostError], args: tuple[Any, ...]) -> MilepostError:
    """An error as it was, without making its text again; for pickles and copies."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class Refused(MilepostError, ValueError):
    """What a caller gave cannot be done; nothing was changed. `.job` is the record as it is, or None."""

    def __init__(self, text: str, *, job: Job | None = None) -> None:
        super().__init__(text)
        self.job = job


class InvalidInput(Refused):
    """A value is malformed; `.field` names it (with its path inside JSON, as in ``metadata.pages[3]``)."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class JobNotFound(Refused):
    """No record of that id: never created, deleted, or expired."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job {job_id} not found")
        self.job_id = job_id


class DuplicateJob(Refused):
    """The id, or the unique key, belongs to a job that exists: `.job`."""


class IllegalTransition(Refused):
    """The lifecycle has no such move from the status that the job is in."""


class JobIsLeased(Refused):
    """A run owns the record; callers may only cancel it."""


class UnknownJobType(Refused):
    """No worker has published a schema for that type; `.known` lists those that are."""

    def __init__(self, job_type: str, known: tuple[str, ...] = ()) -> None:
        listing = ", ".join(known) if known else "none; start a worker that has it"
        super().__init__(f"job_type: no worker has published {job_type!r} (published: {listing})")
        self.job_type = job_type
        self.known = known


class IdempotencyConflict(Refused):
    """The idempotency key was used with another request, or its first request is still under way."""


class FilterError(Refused):
    """A filter that does not parse; `.position` is the index of the offending character."""

    def __init__(self, text: str, position: int, problem: str) -> None:
        super().__init__(f"filter: {problem}\n  {text}\n  {' ' * position}^")
        self.text = text
        self.position = position
        self.problem = problem


class StoreError(MilepostError):
    """The store cannot answer."""


class StoreUnavailable(StoreError):
    """The store is not reachable, or stays locked. Nothing was written."""


class StoreFull(StoreError):
    """The store is reachable and refuses to grow (Redis at maxmemory, a full disk)."""


class OutcomeUnknown(StoreError):
    """The request was sent and no answer came in time: it may or may not have been applied."""


class LayoutMismatch(StoreError):
    """The namespace or file has a layout that this release cannot read; `.found` is its version, as text."""

    def __init__(self, where: str, found: str, ours: int) -> None:
        newer = found.isdigit() and int(found) > ours
        remedy = "upgrade milepost" if newer else "run: milepost migrate"
        super().__init__(f"{where}: layout {found}, this release reads {ours}; {remedy}")
        self.found = found
        self.is_newer = newer


class MissingExtra(MilepostError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs an extra: pip install 'milepost[{extra}]'")
        self.extra = extra


class WaitTimeout(MilepostError, TimeoutError):
    """The job had not ended when the time given to `wait` was over; the job goes on."""


class Retry(MilepostError):
    """Raised by a handler to ask for another attempt after `delay` seconds (None: the usual backoff)."""

    def __init__(self, delay: float | None = None, *, reason: str = "") -> None:
        super().__init__(reason or "retry requested")
        self.delay = delay


class Stop(BaseException):
    """Ends the code of a run. A BaseException, so that `except Exception` does not swallow it."""


class JobCancelled(Stop):
    """Somebody cancelled the job."""


class JobReleased(Stop):
    """The worker shuts down; the job goes back to pending at no cost."""


class LeaseLost(Stop):
    """Another run owns the job, or the job is gone; nothing that this run writes is accepted."""


class JobTimedOut(Stop):
    """The time limit of the run has passed."""
