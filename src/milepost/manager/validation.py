"""Validates the arguments of callers and turns them into fields of a record; the errors for what a record does not allow."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from milepost.core.defaults import CRASHES, LIST_LIMIT_MAX, MAX_ATTEMPTS
from milepost.core.errors import (
    DuplicateJobError,
    IllegalTransitionError,
    InvalidInputError,
    JobNotFoundError,
    LeaseHeldError,
    RejectedError,
    ResultNotSerialisableError,
    TooManyRequestsError,
)
from milepost.core.job import Job, JobStatus
from milepost.core.limits import ready_name, slot_name
from milepost.core.options import QUEUE_BYTES, json_object
from milepost.core.placement import groups_joined
from milepost.core.record import BY_NAME, OPTIONS
from milepost.core.serialization import (
    ERROR_BYTES,
    PARAMS_BYTES,
    RESULT_BYTES,
    US,
    finite_number,
    seconds,
    single_line,
    to_json,
    to_micros,
    validate_job_type,
    validate_key,
    validate_labels,
    wrong_type,
)
from milepost.core.transitions import plan_create
from milepost.core.transitions.change import Change
from milepost.core.transitions.create import FROM_NOW
from milepost.core.transitions.operation_ids import CALLERS_KEPT, CALLERS_SECONDS
from milepost.run import context
from milepost.run.otel import current_trace
from milepost.stores.protocol import Select, Store, WriteResult
from milepost.stores.query import Query
from milepost.stores.refused_groups import group_error

if TYPE_CHECKING:
    from milepost.query.filters import Filter

log = logging.getLogger("milepost.manager")
log.addHandler(logging.NullHandler())

_has_warned = threading.Event()


def job_fields(
    run_by: str,
    job_type: str,
    *,
    message: str = "Job created",
    stored: Mapping[str, str | None] | None = None,
    **options: Any,
) -> dict[str, str]:
    """Return the fields of a new record: `options` as the table of fields knows them, `stored` as text (None: left out).

    Raises InvalidInputError.
    """
    record = {"type": validate_job_type(job_type), "message": message, "run_by": run_by}
    options.setdefault("metadata", None)
    if options.get("trace") is None:
        options["trace"] = current_trace()
    if not options["trace"]:
        del options["trace"]
    pairs: list[str] = []
    for name, value in options.items():
        option = OPTIONS.get(name)
        if option is None or not (option.worker if run_by in ("worker", "external") else option.manual):
            raise TypeError(f"{name!r} is not an option of a job with run_by {run_by!r}")
        text, row = option.write(name, value), BY_NAME[name]
        if text is not None and row.indexed:
            pairs += [f":{name}={one}" for one in text.split(US)]
        elif text is not None:
            record[row.key] = text
    if pairs:
        record["labels"] = US.join([*pairs, *filter(None, [record.get("labels")])])
    record.update((name, text) for name, text in (stored or {}).items() if text is not None)
    return record


def submit_fields(
    job_type: str,
    *,
    params: Mapping[str, Any] | None,
    task_queue: str | None = None,
    only_keys: str | None = None,
    retry_of: str | None = None,
    origin: str | None = None,
    **options: Any,
) -> dict[str, str]:
    """Return the fields of a job for workers, or for the task queue `task_queue`. Raises InvalidInputError."""
    for name, instant in FROM_NOW.items():
        if options.get(name) is not None and options.get(instant) is not None:
            raise InvalidInputError(name, f"cannot be combined with {instant}; omit one of them")
    _check_times(options)
    for name in ("queue", "limit_key"):
        if name in options and options[name] == job_type:
            del options[name]
    slot = slot_name(options.get("limit_key") or job_type, options.get("partition"))
    ready = ready_name(job_type, options.get("queue"), slot)
    attempts = options["max_attempts"] = (
        MAX_ATTEMPTS if options.get("max_attempts") is None else options["max_attempts"]
    )
    return job_fields(
        "worker" if task_queue is None else "external",
        job_type,
        stored={
            "params": to_json(json_object(params, "params"), "params", PARAMS_BYTES),
            "slot": slot if task_queue is None else None,
            "ready": ready if task_queue is None else None,
            "ready_name": ready if task_queue is None and ready != slot else None,
            "task_queue": task_queue,
            "dispatch_after": None if task_queue is None else "0",
            "budget": str(attempts),
            "max_crashes": str(CRASHES),
            "only_keys": only_keys,
            "retry_of": retry_of,
            "origin": origin,
        },
        **options,
    )


def _check_times(options: Mapping[str, Any]) -> None:
    """Raise InvalidInputError if a job could never start, because its latest start is before its earliest."""
    never = "the job could never start"
    delay, expires_in = options.get("delay"), options.get("expires_in")
    if delay is not None and expires_in is not None and seconds(expires_in, "expires_in") < seconds(delay, "delay"):
        raise InvalidInputError("expires_in", f"{expires_in!r:.40} is less than the delay {delay!r:.40}: {never}")
    earliest, latest = options.get("not_before"), options.get("not_after")
    if (
        earliest is not None
        and latest is not None
        and to_micros(latest, "not_after") < to_micros(earliest, "not_before")
    ):
        raise InvalidInputError("not_after", f"{latest} is before not_before, {earliest}: {never}")


def progress_text(progress: object) -> str:
    """Return a fraction as text, clamped to [0, 1]. Raises InvalidInputError unless it is a finite number."""
    number = finite_number(progress)
    if number is None:
        kind = "not finite" if isinstance(progress, float) else f"a {type(progress).__name__}"
        raise InvalidInputError("progress", f"{progress!r:.40} is {kind}; must be a number from 0.0 to 1.0")
    if number > 1.0:
        _warn_of_percentage(number)
        return "1.0"
    return repr(float(number)) if number > 0.0 else "0.0"


def _warn_of_percentage(progress: float) -> None:
    """Log once per process that a caller gives percentages."""
    if not _has_warned.is_set():
        _has_warned.set()
        log.warning(
            "progress %g was clamped to 1.0; progress is a fraction, did you mean %g?", progress, progress / 100
        )


def update_values(progress: float | None, message: str | None, error: str | None, result: Any) -> dict[str, str | None]:
    """Return the values of an update as text. Texts for people are cut. Raises InvalidInputError."""
    return {
        "progress": None if progress is None else progress_text(progress),
        "message": None if message is None else single_line(message),
        "error": None if error is None else single_line(error, ERROR_BYTES),
        "result": None if result is None else to_json(result, "result", RESULT_BYTES),
    }


def status_value(status: JobStatus | str | None) -> JobStatus | None:
    """Return a status given by value or member, and None for None. Raises InvalidInputError."""
    if status is None:
        return None
    try:
        return JobStatus(status)
    except ValueError:
        known = ", ".join(JobStatus)
        raise InvalidInputError("status", f"{status!r:.40} is not a status; one of {known}") from None


def page_size(limit: object) -> int:
    """Return how many rows to read for the `limit` of a caller, at most LIST_LIMIT_MAX. Raises InvalidInputError."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidInputError("limit", f"{limit!r:.40} must be a whole number from 1 to {LIST_LIMIT_MAX}")
    return min(limit, LIST_LIMIT_MAX)


def make_query(
    job_type: str | None = None,
    status: JobStatus | str | None = None,
    labels: Mapping[str, str] | None = None,
    stalled: bool = False,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> Query:
    """Return the query of simple filters; empty ones match everything. Raises InvalidInputError."""
    chosen = status_value(status or None)
    return Query(
        Select(
            (validate_job_type(job_type),) if job_type else (),
            (chosen.value,) if chosen is not None else (),
            tuple((str(key), str(value)) for key, value in validate_labels(labels).items()),
            stalled,
            None if created_after is None else to_micros(created_after, "created_after"),
            None if created_before is None else to_micros(created_before, "created_before"),
        )
    )


def history_filter(job_type: str | None, queue: str | None) -> dict[str, str | None]:
    """Return the filters of a history. Raises InvalidInputError."""
    if job_type is not None:
        validate_job_type(job_type)
    if queue is not None:
        validate_key(queue, "queue", QUEUE_BYTES)
    return {"job_type": job_type, "queue": queue}


def query_of(query: Query | Filter | str | None, now: int) -> Query:
    """Return the query of a filter, given as text or parsed. `now` is in microseconds. Raises InvalidInputError, FilterError."""
    if query is None or isinstance(query, Query):
        return Query() if query is None else query
    from milepost.query.filters import Filter, parse_filter  # here, because most programs do without it

    if isinstance(query, str):
        return parse_filter(query, now=now).query
    if isinstance(query, Filter):
        return query.query
    raise query_error(query)


def query_error(query: object) -> InvalidInputError:
    """Return the error for what is no query."""
    return wrong_type("query", query, "; pass a filter such as 'status:failed type:load'", 60)


def id_of(job: Job | str) -> str:
    """Return the id of a job that a caller gave as a Job or by its id. Raises InvalidInputError."""
    found = job if isinstance(job, str) else getattr(job, "job_id", None)
    if not isinstance(found, str):
        raise wrong_type("job", job, "; pass a Job or the id of one")
    return found


def rejection_error(outcome: WriteResult, job_id: str, verb: str, target: JobStatus | None = None) -> RejectedError:
    """Return the error for a refused change, from the current record."""
    job = outcome.job
    if outcome.wait:
        after = math.ceil(outcome.wait / 1_000_000)
        text = f"Job {job_id} was changed {CALLERS_KEPT} times within {CALLERS_SECONDS} s; try again in {after} s"
        return TooManyRequestsError(text, after, job=job)
    if job is None:
        return JobNotFoundError(job_id)
    if verb == "update" and job.run_by != "manual" and not job.is_terminal:
        who = f"worker {job.worker}" if job.worker else "a worker" if job.run_by != "track" else "its track() block"
        return LeaseHeldError(f"Job {job_id} is run by {who}; callers may only cancel it", job=job)
    if verb == "update" and "closed" in job.record and not job.is_terminal:
        return IllegalTransitionError(
            f"Batch {job_id} is closed, and ends with its jobs; callers may only cancel it", job=job
        )
    if (
        verb == "retry"
        and job.status in (JobStatus.FAILED, JobStatus.CANCELLED)
        and job.run_by in ("worker", "external")
    ):
        if job.child_key is not None:  # a child has no unique key
            lost = f"its parent {job.parent_id} has failed, was cancelled or was removed"
            return IllegalTransitionError(f"Cannot retry job {job_id}: {lost}; retry its parent", job=job)
        return DuplicateJobError(f"Cannot retry job {job_id}: a newer job has its unique key", job=job)
    if verb == "retry" and job.run_by in ("manual", "track") and job.is_terminal:
        remedy = "create a new job" if job.run_by == "manual" else "start it again with its unique_key"
        return IllegalTransitionError(f"Cannot retry job {job_id}: it was not submitted to a worker; {remedy}", job=job)
    to = f" to {target}" if target is not None and not job.is_terminal else ""
    return IllegalTransitionError(f"Cannot {verb} job with status {job.status}{to}", job=job)


def result_of(job: Job) -> Any:
    """Return the result of a completed job. Raises as `AsyncJobManager.result`."""
    if job.result_error is not None:
        raise ResultNotSerialisableError(
            f"Job {job.job_id} completed without its result: {job.result_error}", job.result_text or "", job=job
        )
    if job.status is not JobStatus.COMPLETED:
        why = f" ({job.error})" if job.error else "" if job.is_terminal else "; wait() returns when it has ended"
        raise RejectedError(f"Job {job.job_id} has no result: it is {job.status}{why}", job=job)
    return job.result


async def creation_error(store: Store, job_id: str, fields: Mapping[str, str], outcome: WriteResult) -> RejectedError:
    """Return the error for a record with these fields that was not created."""
    if outcome.key_owner_id is not None:
        owner = await store.get(outcome.key_owner_id)
        return DuplicateJobError(f"unique_key: taken by job {outcome.key_owner_id}", job=owner)
    if outcome.job is not None:
        return DuplicateJobError(f"Job {job_id} already exists", job=outcome.job)
    if (refused := await group_error(store, job_id, fields)) is not None:
        return refused
    return DuplicateJobError(f"Job {job_id} was created by this request and then deleted")


def plan_new(fields: Mapping[str, str], operation_id: str, again: int | None = None) -> Change:
    """Return the change that creates a record. A run that is a member of its groups may join a closed batch."""
    joined = groups_joined(fields["labels"]) if ":group=" in fields.get("labels", "") else []
    run = context.current() if joined else None
    if run is None or not set(joined) <= set(groups_joined(run._job.record.get("labels", ""))):
        return plan_create(fields, operation_id, again)
    return plan_create(fields, operation_id, again, run=(run.job_id, run.token), member=True)
