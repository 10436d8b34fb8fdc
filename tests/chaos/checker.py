"""The checker of invariants: joins the ledger of the handlers, the store and what clients were told. Owns what counts as a breach.

`breaches` gives a line for each, empty when all is well. The numbers are those of the promises (I1 to I26).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from milepost import Event, Job, JobManager

ENDS = ("completed", "failed", "cancelled")
CLOCK_SKEW = 0.1
"""Seconds by which the clocks of a handler and of its store may be read apart on one machine."""


@dataclass
class Told:
    """What clients were told: ids of acknowledged submits, cancels and deletes, and what they asked for."""

    submitted: dict[str, dict[str, Any]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)


@dataclass
class History:
    """All that is known of a soak when it is over."""

    told: Told
    ledger: list[dict[str, Any]]
    jobs: dict[str, Job]
    events: dict[str, list[Event]]
    counts: Mapping[tuple[str, str], int]


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The lines of a ledger, in the order in which they were written."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def collect(manager: JobManager, told: Told, ledger: Path, counts: Mapping[tuple[str, str], int]) -> History:
    """The history of a soak that has come to rest."""
    jobs: dict[str, Job] = {}
    cursor: str | None = None
    while True:
        page = manager.find(None, 1000, cursor)
        jobs.update((job.job_id, job) for job in page.jobs)
        cursor = page.next_cursor
        if cursor is None:
            break
    events = {job_id: manager.events(job_id, 0, 10_000) for job_id in jobs}
    return History(told, read_ledger(ledger), jobs, events, counts)


def breaches(history: History) -> list[str]:
    """A line for each breach of an invariant."""
    found: list[str] = []
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in history.ledger:
        lines[line["job"]].append(line)
    found += _existence(history)
    found += _counts(history)
    for job_id, job in history.jobs.items():
        events = history.events[job_id]
        for name, problem in (
            *_ends(job, events, history.told),
            *_order(job, events),
            *_fences(job, events, lines[job_id]),
            *_result(job, lines[job_id]),
            *_checkpoints(lines[job_id]),
            *_budgets(job),
            *_receipt(job, lines[job_id]),
        ):
            found.append(f"{name} {job_id} ({job.job_type}, {job.status}): {problem}")
    return found


def _existence(history: History) -> Iterable[str]:
    told = history.told
    for job_id in told.submitted.keys() - told.deleted - history.jobs.keys():
        yield f"I7 {job_id}: acknowledged, and gone"
    for job_id in history.jobs.keys() - told.submitted.keys():
        yield f"I8 {job_id}: nobody submitted it"
    for job_id in told.deleted & history.jobs.keys():
        yield f"I7 {job_id}: deleted, and back"


def _counts(history: History) -> Iterable[str]:
    counted: dict[tuple[str, str], int] = defaultdict(int)
    for job in history.jobs.values():
        counted[job.job_type, job.status.value] += 1
    if dict(counted) != dict(history.counts):
        yield f"I12: records {dict(counted)}, counters {dict(history.counts)}"


Found = Iterable[tuple[str, str]]


def _ends(job: Job, events: Sequence[Event], told: Told) -> Found:
    ends = [event for event in events if event.kind in ENDS]
    if not job.is_terminal:
        yield "I22", "has not come to rest"
    if len(ends) != (1 if job.is_terminal else 0):
        yield "I1", f"{len(ends)} ends: {[event.kind for event in ends]}"
    if job.is_terminal and ends and ends[-1].kind != job.status:
        yield "I2", f"its last end was {ends[-1].kind}"
    if job.job_id in told.cancelled:
        if job.status != "cancelled":
            yield "I3", "its cancel was acknowledged"
        elif any(
            event.kind in ("running", "retrying", "released") and event.version > ends[0].version for event in events
        ):
            yield "I3", "something followed its cancel"
    if job.status == "cancelled" and (job.receipt is None or job.receipt.confirmed is None):
        yield "I26", "its receipt is open still"


def _order(job: Job, events: Sequence[Event]) -> Found:
    versions = [event.version for event in events]
    if versions != sorted(set(versions)):
        yield "I11", f"versions out of order: {versions}"
    if versions and versions[-1] > job.version:
        yield "I11", f"an event of version {versions[-1]} beyond the record's {job.version}"
    reached = 0.0
    for event in events:
        if event.kind == "running":
            reached = 0.0
        if event.progress is not None and event.kind not in ("retrying", "released"):
            if event.progress < reached:
                yield "I9", f"progress went from {reached} to {event.progress} at version {event.version}"
            reached = event.progress
    if job.started_at is not None and job.started_at < job.created_at:
        yield "I10", "started before it was created"
    if job.completed_at is not None and job.started_at is not None and job.completed_at < job.started_at:
        yield "I10", "ended before it started"
    if (job.completed_at is not None) != job.is_terminal:
        yield "I10", "completed_at does not go with its status"


def _fences(job: Job, events: Sequence[Event], lines: Sequence[dict[str, Any]]) -> Found:
    """What a run wrote is accepted only between its own start and the next one."""
    begun = [line["fence"] for line in lines if line["what"] == "began"]
    if len(begun) != len(set(begun)):
        yield "I5", f"a fence began twice: {begun}"
    starts = sum(event.kind == "running" for event in events)
    if len(begun) > starts:
        yield "I5", f"{len(begun)} runs began, {starts} starts are on record"
    current, oldest = 0, 0
    for event in events:
        if event.kind == "running":
            oldest, current = current, 0
        said = (event.message or "").split()
        if event.kind in ("progress", "stage", "checkpoint") and said[:1] == ["fence"]:
            fence = int(said[1])
            if current and fence != current:
                yield "I4", f"version {event.version} is of fence {fence}, in the run of fence {current}"
            if fence <= oldest:
                yield "I4", f"version {event.version} is of fence {fence}, after one of fence {oldest} had gone"
            current = fence


def _result(job: Job, lines: Sequence[dict[str, Any]]) -> Found:
    if job.status != "completed":
        return
    returned = [line["result"] for line in lines if line["what"] == "returned"]
    if job.result not in returned:
        yield "I2", f"its result {job.result} was returned by no run: {returned}"
    newest = max((line["fence"] for line in lines if line["what"] == "began"), default=0)
    if isinstance(job.result, dict) and job.result["fence"] != newest:
        yield "I4", f"its result is of fence {job.result['fence']}, a run of fence {newest} had begun"


def _checkpoints(lines: Sequence[dict[str, Any]]) -> Found:
    """A run is given the last acknowledged checkpoint of those before it, or a later one."""
    acknowledged: dict[int, int] = defaultdict(int)
    for line in lines:
        if line["what"] == "checkpoint":
            acknowledged[line["fence"]] = max(acknowledged[line["fence"]], line["step"])
    for line in lines:
        if line["what"] == "began":
            before = max((step for fence, step in acknowledged.items() if fence < line["fence"]), default=0)
            if line["given"] < before:
                yield "I16", f"the run of fence {line['fence']} was given {line['given']}, {before} was acknowledged"


def _budgets(job: Job) -> Found:
    if job.attempt > job.max_attempts:
        yield "I15", f"attempt {job.attempt} of {job.max_attempts}"
    if job.crashes > 3:
        yield "I15", f"{job.crashes} crashes"
    if (
        job.job_type == "poison"
        and job.status == "failed"
        and job.failure is not None
        and job.failure.kind != "crash_loop"
    ):
        yield "I15", f"poison ended as {job.failure.kind}"
    if (
        job.job_type != "poison"
        and job.failure is not None
        and job.failure.kind == "crash_loop"
        and job.status == "failed"
    ):
        yield "I15", "an innocent job ended as crash_loop"


def _receipt(job: Job, lines: Sequence[dict[str, Any]]) -> Found:
    receipt = job.receipt
    if receipt is None or not receipt.confirmed or receipt.stopped_at is None:
        return
    newest = max((line["fence"] for line in lines), default=0)
    after = [
        line for line in lines if line["at"] > receipt.stopped_at.timestamp() + CLOCK_SKEW and line["fence"] == newest
    ]
    if after and job.status == "cancelled":
        yield "I26", f"confirmed as stopped ({receipt.how}), and did {after[0]['what']} afterwards"
