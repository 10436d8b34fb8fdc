"""The one line that says what a job is doing, or why it waits, for every surface that shows jobs; and numbers as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from milepost.core.placement import later_start
from milepost.core.resume import repeated, unfinished_loop
from milepost.core.values import Stage

if TYPE_CHECKING:
    from milepost.core.job import Job
    from milepost.core.values import MemberCounts, Receipt, WaitingFor


IRREGULAR = {"child": "children", "person": "people", "index": "indexes"}
_ENGLISH = re.compile(r"(?:^|[ _-])(?:[a-z]+|[A-Z]+)\Z")
"""What has an English plural: not `Seite`, `kB` or `%`, which a unit of the user may be."""


def number(value: float) -> str:
    """Return a count with thousands separated: ``10,482``."""
    return f"{int(value):,}" if isinstance(value, int) or value.is_integer() else f"{value:,.1f}"


def whole_percent(fraction: float) -> int:
    """Return a fraction in whole percent, rounded down, so that only a finished job shows 100."""
    return math.floor(min(1.0, max(0.0, fraction)) * 100 + 1e-9)


def percent(fraction: float) -> str:
    """Return a fraction in whole percent, as `whole_percent`: ``40%``."""
    return f"{whole_percent(fraction)}%"


def plural(count: float, noun: str) -> str:
    """Return a count and its noun: ``1 job``, ``412 jobs``."""
    return f"{number(count)} {pluralize(noun, count)}"


def pluralize(noun: str, count: float) -> str:
    """Return the noun in singular or plural; as it is if it cannot be English."""
    if count == 1 or not _ENGLISH.search(noun):
        return noun
    if noun in IRREGULAR:
        return IRREGULAR[noun]
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


def size(count: float) -> str:
    """Return bytes in a readable unit: ``812 B``, ``80.1 kB``, ``3.4 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


MINUTE, HOUR, DAY = 60, 3600, 86400


def duration(seconds: float) -> str:
    """Return a duration in its two largest units: ``88 ms``, ``0.4 s``, ``58 s``, ``1 min 5 s``, ``2 h 10 min``."""
    seconds = max(0.0, seconds)
    if seconds < 0.1:
        return f"{int(seconds * 1000)} ms"
    if seconds < 10:
        return f"{math.floor(seconds * 10) / 10:.1f} s"
    whole = int(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"


def stated_duration(seconds: float) -> str:
    """Return a duration that was chosen, not measured, without a part that is 0: ``2 s``, ``10 min``, ``1 h 30 min``."""
    return re.sub(r"\.0(?= s$)| 0 \w+$", "", duration(seconds))


CREATED_MESSAGE = "Job created"
"""The message of a new job until its caller sets one; it says nothing about the work."""
LOOP_STAGE = "items"
"""The stage of a tracked loop that has no name of its own."""
TEXT_LENGTH = 400
MAX_RESULT_TEXT = 64 * 1024
_WAITS: Mapping[str, str] = {
    "no_worker": "No worker serves {job_type}",
    "queue_not_served": "No worker serves {job_type} in the queue {queue}",
    "paused": "Type {job_type} is paused",
    "partition_limit_reached": "Limit of {limit} per partition reached for {partition} of {limit_key}",
    "gate_closed": "{limit_key} is closed until {at}",
    "rate_reached": "Rate of {rate} reached for {limit_key}",
    "limit_reached": "Concurrency limit of {limit} reached for {job_type}",
    "starts_at": "Starts {at}",
    "wakes_at": "Suspended until {at}",
    "retries_at": "Next attempt {at}",
    "jobs_ahead": "{count} ahead",
    "many_jobs_ahead": "Over {count} ahead",
    "after": "Waiting for {group}",
    "answer": "Waiting for an answer to question {key}",
    "paused_job": "Paused; {resume}",
    "previous_run_stopping": "Waiting for the previous run to stop",
}


_RESUMES = {
    "nothing": "it has not started yet",
    "rest": "a resume continues its resumable loops where they stopped",
    "checkpoint": "a resume starts its code again, with its last checkpoint",
    "steps": "a resume starts its code again, with its kept steps",
    "all": "a resume starts its code again from the beginning",
}


def activity(job: Job) -> str:
    """Return one line on what the job is doing: why it waits, its stage and count, its error, or who cancelled it."""
    if _may_have(job, "stop_at"):
        receipt = job.receipt
        if receipt is not None and receipt.confirmed is None and job.status != "cancelled":
            text = _stop(receipt)
            return text[0].upper() + text[1:]
    return _line(_BY_STATUS[job.status.value](job))


def waiting_text(waiting_for: WaitingFor | None, since: datetime | None = None) -> str:
    """Return the text for the reason why a job waits. Times in another year than `since` are shown with their year."""
    if waiting_for is None or waiting_for.code not in _WAITS:
        return "Waiting for a worker"
    try:
        values = {name: _shown(name, value, since) for name, value in waiting_for.params.items()}
        text = _WAITS[waiting_for.code].format_map(values)
        return f"{text}, which is stalled: {values['stalled']}" if "stalled" in values else text
    except (KeyError, ValueError):
        return "Waiting for a worker"


def counted(stage: Stage) -> str:
    """Return what a stage has done: ``2,681 of 9,000 chunks``, ``3.4 MB of 80.1 MB``; empty before the first unit."""
    if stage.unit == "byte":
        done = size(stage.done)
        return f"{done} of {size(stage.total)}" if stage.total else done if stage.done else ""
    if not stage.total:
        return plural(stage.done, stage.unit) if stage.done else ""
    return f"{number(stage.done)} of {plural(stage.total, stage.unit)}"


def open_stage(stages: Iterable[Stage]) -> Stage | None:
    """Return the innermost stage that is open, or None."""
    return next((stage for stage in reversed(tuple(stages)) if stage.ended_at is None), None)


def outer_stage(stages: Iterable[Stage]) -> Stage | None:
    """Return the outermost stage that is open, or None."""
    return next((stage for stage in reversed(tuple(stages)) if stage.ended_at is None and stage.parent is None), None)


def members_text(counts: MemberCounts, noun: str = "") -> str:
    """Return how many jobs of a group have ended: ``4 of 12 have ended, 1 failed``; the noun follows the total."""
    ends = {"failed": counts.failed, "cancelled": counts.cancelled}
    bad = "".join(f", {number(count)} {name}" for name, count in ends.items() if count)
    return f"{number(counts.ended)} of {number(counts.total)}{noun} have ended{bad}"


def progress_text(job: Job) -> str:
    """Return how far a job is, or was when it ended: ``40%``, or ``stage 2: 40%`` where the share of the stages is unknown;
    else empty."""
    if job.progress_known or job.status.value == "completed":
        return percent(job.progress)
    done = job.stage_progress
    count = sum(stage.parent is None for stage in job.stages)
    return "" if done is None else f"stage {count}: {percent(done)}"


def own_message(job: Job) -> str:
    """Return the job's message where it adds to its stages; empty if it belongs to an earlier stage."""
    message = job.message
    if message == CREATED_MESSAGE:
        return ""
    stage = open_stage(job.stages)
    left = [one.name for one in job.stages if one.ended_at is not None]
    repeats = stage is not None and any(message.startswith(name) for name in (stage.name, *left))
    return "" if repeats else message


def _pending(job: Job) -> str:
    if job.run_by == "manual":
        return job.message if job.message != CREATED_MESSAGE else "Not started"
    # Without a server or a forecast of starts only the record is known, as of its last change.
    known_at = int(job.record.get("known_at") or job.record.get("updated") or 0)
    waits = job.waiting_for or later_start(job.record, known_at)
    if waits is not None and waits.params.get("group") == f"children:{job.job_id}":
        counts, key = waits.members, waits.params.get("question")
        asked = f"Waiting for an answer to question {key} and for its children" if key else "Waiting for its children"
        return asked + ("" if counts is None else f": {members_text(counts)}")
    text = waiting_text(waits, job.updated_at or job.created_at)
    if not is_between_runs(job) or (waits is not None and waits.code == "paused_job"):  # its text says what it repeats
        return text
    return " · ".join(filter(None, (text, _next_run(job))))


def is_between_runs(job: Job) -> bool:
    """Return whether the last run of the job has ended and the next one has not started."""
    return job.status.value == "pending" and bool(job.attempts) and job.attempts[-1].ended_at is not None


def _next_run(job: Job) -> str:
    """Return where the next run of a job continues; empty if it starts from the beginning, or that is not known here."""
    record = job.record
    match repeated(record):
        case "rest":
            loop = unfinished_loop(record)
            return "its resumable loops continue where they stopped" if loop is None else _resumes(job, *loop)
        case "checkpoint":
            saved = job.checkpoint_at
            at = "" if saved is None else f" of {_moment(saved, job.updated_at)}"
            return f"starts again with its checkpoint{at}"
        case "steps":
            return "starts again with its kept steps"
    return ""


def _resumes(job: Job, name: str, done: int, total: int | None) -> str:
    """Return where a loop continues: ``resumes Embedding after 40 of 100 chunks``. Only a stage has a name without secrets."""
    stage = next((stage for stage in job.stages if stage.name == name), None)
    named = "" if stage is None or name == LOOP_STAGE else f" {name}"
    unit = stage.unit if stage is not None and stage.total == total else "item"
    return f"resumes{named} after {counted(Stage(name, done=done, total=total, unit=unit)) or plural(done, unit)}"


def _running(job: Job) -> str:
    if job.stalled:
        return " · ".join(filter(None, (job.stalled, own_message(job))))
    counts = job.waiting_for.members if job.run_by == "manual" and job.waiting_for is not None else None
    if counts is not None:  # a batch
        return members_text(counts, " jobs") if job.progress_known else f"Open: {members_text(counts, ' jobs so far')}"
    stage = open_stage(job.stages)
    at = "" if stage is None else f"{'' if stage.name == LOOP_STAGE else stage.name} {counted(stage)}".strip()
    parts = [part for part in (at, own_message(job), _failed_items(job)) if part]
    if job.waiting_for is not None and job.waiting_for.code == "answer":
        parts.append(f"{'question' if parts else 'Question'} {job.waiting_for.params.get('key')} waits for an answer")
    return " · ".join(parts) or "Running"


def _completed(job: Job) -> str:
    left = left_open(job.open_children) if _may_have(job, "open_children") else ""
    return " · ".join(part for part in (_outcome(job), left and f"completed {left}") if part)


def left_open(children: int) -> str:
    """Return ``with 12 open children`` for a completed job that has not waited for them; empty for none."""
    return f"with {number(children)} open {pluralize('child', children)}" if children else ""


def _outcome(job: Job) -> str:
    if _may_have(job, "result_error") and job.result_error:
        return f"Result not stored: {job.result_error}"
    # Each GET computes this line: a stored result is decoded only if it may hold a summary, and is not large.
    text = job.record.get("result", "") if job.record else '"'
    if (text[:1] == '"' or '"summary"' in text) and len(text) < MAX_RESULT_TEXT:
        result = job.result
        summary = result.get("summary") if isinstance(result, dict) else result
        if isinstance(summary, str) and summary:
            return summary
    if job.run_by == "manual" and job.message != CREATED_MESSAGE:
        return job.message
    return _failed_items(job)


def _failed(job: Job) -> str:
    return job.error or "Failed"


def _cancelled(job: Job) -> str:
    receipt = job.receipt
    if receipt is not None and receipt.reason == "dependency_failed" and job.error:
        return f"Cancelled: {job.error}"
    who = "" if receipt is None or not receipt.requested_by else f" by {receipt.requested_by}"
    when = "" if job.completed_at is None else f" {_moment(job.completed_at, job.created_at)}"
    how = "" if receipt is None or job.started_at is None else f"; {_stop(receipt)}"
    return f"Cancelled{who}{when}{how}"


def _stop(receipt: Receipt) -> str:
    if receipt.confirmed is None:
        return "stopping, waiting for the worker to confirm" if receipt.how is None else "the code is still running"
    return "stop confirmed" if receipt.confirmed else "stop not confirmed"


_BY_STATUS = {
    "pending": _pending,
    "running": _running,
    "completed": _completed,
    "failed": _failed,
    "cancelled": _cancelled,
}


def _failed_items(job: Job) -> str:
    counts = job.item_counts if _may_have(job, "item_counts") else None
    return f"{plural(counts.failed, 'item')} failed" if counts is not None and counts.failed else ""


def _may_have(job: Job, name: str) -> bool:
    """Return whether a field may be set: without decoding it, if the job came from a store."""
    record = job.record
    return not record or name in record


def _line(text: str) -> str:
    """Return the first line that is not empty, cut to TEXT_LENGTH."""
    for line in text.splitlines():
        if line.strip():
            shown = line.strip()
            return shown if len(shown) <= TEXT_LENGTH else shown[: TEXT_LENGTH - 1] + "…"
    return ""


def _shown(name: str, value: Any, since: datetime | None) -> str:
    if name == "at" and isinstance(value, str):
        return _moment(datetime.fromisoformat(value), since)
    if name == "resume":
        return _RESUMES.get(str(value), _RESUMES["all"])
    if name == "group" and isinstance(value, str):
        kind, _, rest = value.partition(":")
        return f"{'the children of' if kind == 'children' else kind} {rest}"
    if name == "count" and isinstance(value, int):
        return plural(value, "job")
    return str(value)


def _moment(at: datetime, since: datetime | None) -> str:
    """Return a time in UTC: ``26 Nov 14:05:09 UTC``, with its year if that is not the one of `since`."""
    at = at.astimezone(UTC)
    year = f" {at.year}" if since is not None and since.astimezone(UTC).year != at.year else ""
    return f"{at:%d %b}{year}{at: %H:%M:%S} UTC".lstrip("0")
