"""The messages of webhooks: the end of a job, a question, and a job that stalls."""

from __future__ import annotations

from datetime import UTC, datetime

from milepost.core.events import Event
from milepost.core.job import Job
from milepost.core.serialization import to_micros
from milepost.web.http.json_body import encoded, row


def event_message(job: Job, event: Event) -> tuple[str, str]:
    """Return the id and the body of the message about a question that a job has asked, or about a job that stalls."""
    data = {**row(job), "question": dict(event.data)} if event.kind == "asked" else row(job)
    body = {"type": f"job.{event.kind}", "timestamp": datetime.now(UTC).isoformat(), "data": data}
    return f"msg_{job.job_id}_{event.version}_{event.kind}", encoded(body).decode()


def message_for(job: Job) -> tuple[str, str]:
    """Return the id and the body of the message about a job's end. The id is the same whichever server creates it."""
    ended = to_micros(job.completed_at, "completed_at") if job.completed_at is not None else job.version
    data = {**row(job), "metadata": job.metadata, "retry_of": job.retry_of, "open_children": job.open_children}
    body = {"type": f"job.{job.status.value}", "timestamp": datetime.now(UTC).isoformat(), "data": data}
    return f"msg_{job.job_id}_{ended}", encoded(body).decode()


def job_at_end(job: Job, event: Event) -> Job | None:
    """Return the job as it was at the end that an event reports, even if it was retried since.

    Return None if the id now belongs to a job that was created after that end.
    """
    at = event.at
    if at is None or at == job.completed_at:
        return job if job.is_terminal else None
    if at < job.created_at:
        return None
    run = next((one for one in job.attempts if one.ended_at == at), None)
    error = event.data.get("error")
    then = {
        "status": event.kind,
        "completed": str(to_micros(at, "at")),
        "version": str(event.version),
        "progress": str(event.progress if event.progress is not None else 0.0),
        "message": event.message or "",
        "error": error if isinstance(error, str) else None,
        "open_children": str(event.data.get("open_children", 0)),
        "attempt": str(run.attempt) if run is not None else None,
        "worker": run.worker if run is not None else None,
        "started": str(to_micros(run.started_at, "started_at"))
        if run is not None and run.started_at is not None
        else None,
    }
    kept = {name: text for name, text in job.record.items() if name not in _LATER_RUN_FIELDS}
    return Job.stored(job.job_id, {**kept, **{name: text for name, text in then.items() if text is not None}})


_LATER_RUN_FIELDS = frozenset(
    [
        "error",
        "worker",
        "started",
        "result",
        "failure",
        "eta",
        "stages",
        "item_counts",
        "ready",
        "lease",
        "token",
        "stalled",
    ]
)
"""Record fields that may belong to a later run than the one the event reports."""
