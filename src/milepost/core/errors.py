"""The errors that milepost raises.

::

    MilepostError
    +-- RejectedError (ValueError)             a request that cannot be met; .job is the current record, or None
    |   +-- InvalidInputError                  a value is malformed: .field names it
    |   |   +-- InputChangedError              the items of a loop, or the arguments of a step, have changed
    |   +-- JobNotFoundError                   no job has this id
    |   +-- ScheduleNotFoundError              no schedule has this name
    |   +-- DuplicateJobError                  the id, or the unique key, is taken
    |   +-- IllegalTransitionError             the lifecycle has no such move
    |   +-- LeaseHeldError                     a run owns the record; only a cancel is accepted
    |   +-- ResultNotSerialisableError         the job completed, but its result is not JSON: .text is its repr()
    |   +-- TooManyRequestsError               too many requests for one job within a minute: .retry_after seconds
    |   +-- UnknownJobTypeError                no worker has published this type
    |   +-- IdempotencyConflictError           the key was used with another body, or is still in progress
    |   +-- AlreadyAnsweredError               the question was answered before; the text says by whom and when
    |   +-- QuestionExpiredError               the question has expired without an answer
    |   +-- FilterError                        a filter has a syntax error: .position is its index
    +-- StoreError                             the store cannot answer
    |   +-- StoreUnavailableError              not reachable, or locked for too long: nothing was written
    |   +-- StoreFullError                     reachable, but out of space
    |   +-- OutcomeUnknownError                sent, but no answer in time: it may have been applied
    |   +-- LayoutMismatchError                written by a release that this one cannot read
    +-- MissingExtraError (ImportError)        an optional dependency is not installed; the text has the pip command
    +-- PluginError                            a plugin is broken, or two packages register it under one name
    +-- WaitTimeoutError (TimeoutError)        wait() timed out before the job ended
    +-- ChildFailedError                       run.join() found children that did not complete: .counts
    +-- Retry                                  raised by a handler: retry after .delay
    +-- Snooze                                 raised by a handler: give the job back for .delay, at no attempt
    +-- Fail                                   raised by a handler: fail the job, with no further attempt
    |   +-- BudgetExceededError                the job has spent more than its budget
    RunStop (BaseException)                    ends the code of a run; `except Exception` does not catch it
    +-- JobCancelled                           the job was cancelled
    +-- JobReleased                            the worker shuts down; the job is released without charging an attempt
    +-- LeaseLost                              another run owns the job; writes of this one are refused
    +-- JobTimedOut                            the run exceeded its time limit
    +-- JobPaused                              a user has paused the job; its code starts again after a resume
    +-- JobSuspended                           the run waits without its worker: its code returns, and starts again later
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milepost.core.job import Job
    from milepost.core.serialization import Duration
    from milepost.core.values import MemberCounts


class MilepostError(Exception):
    """The base class of milepost's errors."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (type(self), self.args), self.__dict__)


def _restored(kind: type[MilepostError], args: tuple[Any, ...]) -> MilepostError:
    """Return an error with its original text; for pickles and copies."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class RejectedError(MilepostError, ValueError):
    """The request cannot be met; nothing was changed. `.job` is the current record, or None."""

    def __init__(self, text: str, *, job: Job | None = None) -> None:
        super().__init__(text)
        self.job = job


class InvalidInputError(RejectedError):
    """A value is malformed; `.field` names it (with its path inside JSON, for example ``metadata.pages[3]``)."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class InputChangedError(InvalidInputError):
    """A loop or a step cannot continue, because its items or arguments are not those of an earlier attempt; the text names
    both and the remedies."""

    def __init__(self, problem: str, remedies: str, field: str = "items") -> None:
        super().__init__(field, f"{problem}; {remedies}")


class JobNotFoundError(RejectedError):
    """No job has this id. It may have been deleted or expired."""

    def __init__(self, job_id: str, text: str | None = None) -> None:
        super().__init__(f"Job {job_id} not found" if text is None else text)
        self.job_id = job_id


class ScheduleNotFoundError(RejectedError):
    """No schedule has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Schedule {name} not found")
        self.name = name


class DuplicateJobError(RejectedError):
    """The id, or the unique key, is taken by an existing job: `.job`."""


class IllegalTransitionError(RejectedError):
    """The status of the job does not allow this change, for example a cancel of a job that has ended."""


class LeaseHeldError(RejectedError):
    """A run, or an open transaction, holds the job; callers can only cancel it. `track` raises it for a key with a live run."""


class TooManyRequestsError(RejectedError):
    """Too many cancels, retries or deletes of one job within a minute; try again after `.retry_after` seconds."""

    def __init__(self, text: str, retry_after: int = 60, *, job: Job | None = None) -> None:
        super().__init__(text, job=job)
        self.retry_after = retry_after


class ResultNotSerialisableError(RejectedError):
    """The job completed, but its result could not be stored as JSON; `.text` is its redacted repr(), cut to 8 KiB."""

    def __init__(self, problem: str, result_text: str, *, job: Job | None = None) -> None:
        super().__init__(problem, job=job)
        self.text = result_text


class UnknownJobTypeError(RejectedError):
    """No worker has published a schema for this type; `.known` lists the published types."""

    def __init__(self, job_type: str, known: tuple[str, ...] = ()) -> None:
        listing = ", ".join(known) if known else "none; start a worker that has it"
        super().__init__(f"job_type: no worker has published {job_type!r} (published: {listing})")
        self.job_type = job_type
        self.known = known


class IdempotencyConflictError(RejectedError):
    """The idempotency key was used with another request, or its first request is still in progress."""


class FilterError(RejectedError):
    """A filter has a syntax error; `.position` is the index of the offending character."""

    def __init__(self, text: str, position: int, problem: str) -> None:
        super().__init__(f"filter: {problem}\n  {text}\n  {' ' * position}^")
        self.text = text
        self.position = position
        self.problem = problem


class StoreError(MilepostError):
    """The store cannot answer."""


class StoreUnavailableError(StoreError):
    """The store is not reachable, or was locked for too long. Nothing was written.

    `.temporary` is False if waiting does not help, for example with a wrong password or an unusable path.
    """

    def __init__(self, text: str, *, temporary: bool = True) -> None:
        super().__init__(text)
        self.temporary = temporary


class StoreFullError(StoreError):
    """The store is reachable but out of space (Redis at maxmemory, a full disk)."""


class OutcomeUnknownError(StoreError):
    """The request was sent but not answered in time; it may have been applied."""


class LayoutMismatchError(StoreError):
    """The namespace or file has a layout that this release cannot read; `.found` is its version, as text. `lacks` says what a
    store lacks that has the version of this release all the same: a development version made it."""

    def __init__(self, where: str, found: str, ours: int, lacks: str | None = None) -> None:
        newer = found.isdigit() and int(found) > ours
        remedy = "upgrade milepost" if newer else "run: milepost migrate"
        text = f"layout {found}, this release reads {ours}; {remedy}"
        if lacks is not None:
            text = f"made by another version of milepost ({lacks}); use that version, or move the store away and start anew"
        super().__init__(f"{where}: {text}")
        self.found = found
        self.is_newer = newer
        self.lacks = lacks


class MissingExtraError(MilepostError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs an optional dependency; run: pip install 'milepost[{extra}]'")
        self.extra = extra


class PluginError(MilepostError):
    """A plugin is broken, or two installed packages register it under one name. The message names the package."""


class WaitTimeoutError(MilepostError, TimeoutError):
    """The job did not end within the timeout of `wait`; it continues."""


class Retry(MilepostError):
    """Raised by a handler to request another attempt after `delay`: seconds, a timedelta or text such as "2h".

    None is the usual backoff.
    """

    def __init__(self, delay: Duration | None = None, *, reason: str = "") -> None:
        super().__init__(reason or "retry requested")
        self.delay = delay


class Snooze(MilepostError):
    """Raised by a handler to give its job back for `delay` (seconds, a timedelta or text such as "30s"), at no attempt.

    For a service that asks to come back later: ``raise Snooze(float(response.headers["Retry-After"]))``. With
    ``gate="openai"`` no job with this limit key starts on any worker until then. Raises InvalidInputError for an invalid
    delay or gate. In a tracked block it is an error as any other.
    """

    def __init__(self, delay: Duration, *, gate: str | None = None, reason: str = "") -> None:
        from milepost.core.limits import KEY_BYTES  # these import this module
        from milepost.core.serialization import seconds, validate_key

        super().__init__(reason or f"snoozed for {delay}")
        self.delay = seconds(delay, "delay")
        if gate is not None:
            validate_key(gate, "gate", KEY_BYTES)
        self.gate = gate


class ChildFailedError(MilepostError):
    """`run.join` found children that failed or were cancelled; `.counts` are the numbers of children."""

    def __init__(self, text: str, counts: MemberCounts) -> None:
        super().__init__(text)
        self.counts = counts


class Fail(MilepostError):
    """Raised by a handler to fail its job without further attempts: ``raise Fail("the document is encrypted")``."""


class BudgetExceededError(Fail):
    """The job has spent more than its budget. Raised by `run.add_usage`; the job fails without further attempts."""


class AlreadyAnsweredError(RejectedError):
    """The question was answered before; the message says by whom and when."""


class QuestionExpiredError(RejectedError):
    """The question has expired without an answer. Raised by `run.ask` without a default, and by a late `answer`."""


class RunStop(BaseException):
    """Ends the code of a run. A BaseException, so that `except Exception` does not catch it."""


class JobCancelled(RunStop):
    """The job was cancelled."""


class JobReleased(RunStop):
    """The worker shuts down; the job returns to pending without charging an attempt."""


class LeaseLost(RunStop):
    """Another run owns the job, or the job was deleted; writes of this run are refused."""


class JobTimedOut(RunStop):
    """The run exceeded its time limit."""


class JobPaused(RunStop):
    """A user has paused the job; the code starts again when the job is resumed."""


class JobSuspended(RunStop):
    """The job waits without its worker: the code returns, and starts again when the time has come, the answer is there, or no
    member of the groups is open.

    Raised by `run.sleep`, `run.ask` and `run.join`, and by any call of the run once a budget with ``on_budget="ask"`` is
    spent; every later call of the run raises it again. Let it pass. `wake_at` is in microseconds of the store's clock, None
    for no limit; `asking` is the key of the question that the job waits for, and `is_asked_above` says that a job above it
    asks that question; `groups` are those that it waits for.
    """

    def __init__(
        self,
        wake_at: int | None = None,
        asking: str | None = None,
        groups: tuple[str, ...] = (),
        *,
        is_asked_above: bool = False,
    ) -> None:
        super().__init__("suspended")
        self.wake_at = wake_at
        self.asking = asking
        self.groups = groups
        self.is_asked_above = is_asked_above
