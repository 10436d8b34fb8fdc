"""Check the history of a soak: one function per invariant, which yields its violations as text.

Only I6, whose bound is a time, depends on the speed of the machine. Unknown facts (a lost reply, a line that a killed
process did not write) count in favour of the store, so that every report is a real violation. `check` runs all checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

from milepost.core.events import STATUS_KINDS, Event
from milepost.stores.protocol import Select
from tests.chaos.history import History, at
from tests.chaos.ledger import Line

ENDS = ("completed", "failed", "cancelled")
WRITES_OF_A_RUN = ("progress", "stage", "checkpoint", "completed", "released")
Found = Iterator[str]


def fence_of(event: Event) -> int | None:
    """Return the fence of the run that wrote an event.

    Handlers of a soak begin their message with it, and end an error with it.
    """
    error = str(event.data.get("error", ""))
    said = error.rpartition("fence ")[2] if "fence " in error else event.message or ""
    word = said.partition(" ")[0]
    return int(word) if word.isdigit() else None


def _moves(history: History, job_id: str) -> list[Event]:
    return [event for event in history.feed_of.get(job_id, []) if event.kind in STATUS_KINDS | {"deleted"}]


def _lives(events: list[Event]) -> Iterator[list[Event]]:
    """Yield the events of an id in lists, one for each time that it was created."""
    life: list[Event] = []
    for event in events:
        if event.kind == "created" and life:
            yield life
            life = []
        life.append(event)
    if life:
        yield life


def i1(history: History) -> Found:
    """Check that a chain of attempts has at most one terminal transition without an explicit retry or delete."""
    for job_id in history.feed_of:
        asked = len(history.did(job_id, "retry", "done", "unknown"))
        for life in _lives(_moves(history, job_id)):
            ends = [event for event in life if event.kind in ENDS]
            if len(ends) > 1 + asked:
                yield f"{job_id} ended {len(ends)} times with {asked} explicit retries: {_listed(ends)}"
            for before, after in pairwise(life):
                if before.kind in ENDS and after.kind not in ("retrying", "deleted"):
                    yield f"{job_id} continued after its end: {_listed([before, after])}"


def i2(history: History) -> Found:
    """Check that a finish is the final status, and that the result is the bytes that were sent."""
    sent: dict[str, list[Line]] = {
        job_id: [line for line in lines if line["do"] == "end"] for job_id, lines in history.runs_of.items()
    }
    for job_id, job in history.jobs.items():
        if job.status == "completed" and job.result not in [line["result"] for line in sent.get(job_id, [])]:
            yield f"{job_id} has a result that no run sent: {job.result!r}"
        last = [event for event in _moves(history, job_id) if event.kind != "deleted"]
        if last and last[-1].status is not None and job.status != last[-1].status:
            yield f"{job_id} is {job.status}, and its last transition was {_listed(last[-1:])}"


def i3(history: History) -> Found:
    """Check that after an acknowledged cancel nothing completes, fails or starts until an explicit retry."""
    for job_id in history.calls_of:
        cancelled = history.did(job_id, "cancel", "done")
        retried = history.did(job_id, "retry", "done", "unknown")
        job = history.jobs.get(job_id)
        if cancelled and not retried and job is not None and job.status != "cancelled":
            yield f"{job_id} is {job.status} after an acknowledged cancel"
        if cancelled and job_id in history.feed_of and not any(e.kind == "cancelled" for e in history.feed_of[job_id]):
            yield f"{job_id}: its cancel was acknowledged and never written"
        for before, after in pairwise(_moves(history, job_id)):
            if before.kind == "cancelled" and after.kind in ("running", "completed", "failed"):
                yield f"{job_id}: {_listed([before, after])}"
            if before.kind == "cancelled" and after.kind == "retrying" and not retried:
                yield f"{job_id} was started again after a cancel without a request"


def i4(history: History) -> Found:
    """Check that each accepted write of a run has the token of the job's current lease, and that fences only grow."""
    for job_id, events in history.feed_of.items():
        current: int | None = None
        highest = 0
        for event in events:
            fence = fence_of(event)
            if event.kind == "running":
                current = None
            elif _is_of_its_run(event) and fence is not None:
                if current is None and fence <= highest:
                    yield f"{job_id} v{event.version}: a write under fence {fence} after a lease above {highest} began"
                elif current is not None and fence != current:
                    yield f"{job_id} v{event.version}: {event.kind} under fence {fence} while {current} has the lease"
                current = fence
                highest = max(highest, fence)
            elif event.kind in WRITES_OF_A_RUN and current is not None and fence is not None and fence < current:
                yield f"{job_id} v{event.version}: {event.kind} under fence {fence} while {current} has the lease"
    yield from _stale_in_ledger(history)


def _is_of_its_run(event: Event) -> bool:
    """Return whether an event certainly shows the fence of its own run, and not one left in the record."""
    return event.kind in ("checkpoint", "completed") or "fence " in str(event.data.get("error", ""))


def _stale_in_ledger(history: History) -> Found:
    """Yield acknowledged writes sent after a later lease had begun, and results of a lease that was not the last."""
    for job_id, lines in history.runs_of.items():
        started = {line["fence"]: line["at"] for line in lines if line["do"] == "start"}
        sent = {(line["fence"], line["n"]): line["at"] for line in lines if line["do"] == "step"}
        for line in lines:
            when = sent.get((line["fence"], line.get("n")))
            if line["do"] == "acked" and when is not None:
                late = [fence for fence, begun in started.items() if fence > line["fence"] and begun < when]
                if late:
                    yield f"{job_id}: a checkpoint under fence {line['fence']} was acknowledged after {late} had begun"
        job = history.jobs.get(job_id)
        if job is not None and job.status == "completed" and isinstance(job.result, dict) and started:
            fence = job.result.get("fence", 0)
            if fence < max(started):
                yield f"{job_id} was completed under fence {fence}, and {max(started)} had begun"


def i5(history: History) -> Found:
    """Check that a job never has two leases, and that it has one if and only if it runs under a worker."""
    for job_id in history.feed_of:
        for before, after in pairwise(_moves(history, job_id)):
            if before.kind == after.kind == "running":
                yield f"{job_id} was started twice without an end between: {_listed([before, after])}"
    for job_id, lines in history.runs_of.items():
        fences = [(line["fence"], line["pid"]) for line in lines if line["do"] == "start"]
        if len(fences) != len(set(fences)) or len({fence for fence, _ in fences}) != len(fences):
            yield f"{job_id}: two runs under one fence: {fences}"
    for job_id, job in history.jobs.items():
        leased = "token" in job.record
        if leased is not (job.status == "running"):
            yield f"{job_id} is {job.status} {'with' if leased else 'without'} a lease"


def i6(history: History) -> Found:
    """Check that runs of a dead worker are found within lease and sweep interval while the store is reachable."""
    stays: dict[int, list[tuple[str, int, float]]] = {}
    for job_id in history.feed_of:
        for event, after in pairwise([*_moves(history, job_id), None]):
            if event is not None and event.kind == "running" and (pid := _pid(event)) is not None:
                left = at(after) if after is not None else math.inf
                stays.setdefault(pid, []).append((job_id, at(event), left))
    for pid, killed in history.deaths:
        away = sum(to - since + history.patience for since, to in history.outages if to > killed)
        for job_id, began, left in stays.get(pid, []):
            if began <= killed and left > killed + history.patience + away:
                yield f"{job_id}: its worker {pid} died, and it was found after {(left - killed) / 1e6:.1f} s"


def _pid(event: Event) -> int | None:
    """Return the process of the worker that an event names."""
    word = str(event.data.get("worker", "")).split(":")[1:2]
    return int(word[0]) if word and word[0].isdigit() else None


def i7(history: History) -> Found:
    """Check that each acknowledged job exists until it is deleted."""
    for job_id in history.calls_of:
        deleted = history.did(job_id, "delete", "asked", "done", "unknown")
        if history.did(job_id, "submit", "done") and not deleted and job_id not in history.jobs:
            yield f"{job_id} was acknowledged and is lost"
        if history.did(job_id, "delete", "done") and not _again(history, job_id) and job_id in history.jobs:
            yield f"{job_id} was deleted and is there"


def _again(history: History, job_id: str) -> bool:
    return len(history.did(job_id, "submit", "asked")) > 1


def i8(history: History) -> Found:
    """Check that each job that exists or ran was submitted."""
    submitted = {line["job"] for line in history.calls if line["do"] == "submit" and line["phase"] == "asked"}
    for job_id in {*history.jobs, *history.runs_of, *history.feed_of} - submitted:
        yield f"{job_id} was never submitted"
    for job_id in history.calls_of:
        refused = history.did(job_id, "submit", "refused")
        if refused and not history.did(job_id, "submit", "done", "unknown") and job_id in history.jobs:
            yield f"{job_id} was refused and is there"


def i9(history: History) -> Found:
    """Check that progress is finite, in [0, 1], and never decreases within an attempt."""
    for job_id, events in history.feed_of.items():
        reached = 0.0
        for event in events:
            if event.kind in ("running", "retrying", "released", "created"):
                reached = 0.0
            value = event.progress
            if value is None:
                continue
            if not (math.isfinite(value) and 0.0 <= value <= 1.0):
                yield f"{job_id} v{event.version}: progress {value}"
            elif value < reached:
                yield f"{job_id} v{event.version}: progress went from {reached} to {value}"
            else:
                reached = value


def i10(history: History) -> Found:
    """Check that created <= started <= completed, each set exactly if the status requires it."""
    for job_id, job in history.jobs.items():
        times = [time for time in (job.created_at, job.started_at, job.completed_at) if time is not None]
        if times != sorted(times):
            yield f"{job_id}: its times go back: {times}"
        if (job.completed_at is not None) is not job.is_terminal:
            yield f"{job_id} is {job.status} with completed_at {job.completed_at}"
        if job.status in ("running", "completed") and job.started_at is None:
            yield f"{job_id} is {job.status} and never started"
        if job.status == "pending" and job.started_at is not None:
            yield f"{job_id} is pending and has started"


def i11(history: History) -> Found:
    """Check that event sequences have no gaps, and that the record keeps each lifecycle and checkpoint event."""
    for job_id, events in history.feed_of.items():
        for life in _lives(events):
            versions = [event.version for event in life]
            if versions != list(range(1, len(versions) + 1)):
                yield f"{job_id}: versions {versions}"
    for job_id, job in history.jobs.items():
        lives = [*_lives(history.feed_of.get(job_id, []))]
        last = lives[-1] if lives else []
        written = [event.version for event in last if event.kind in STATUS_KINDS | {"checkpoint"}]
        kept = [
            event.version for event in history.events.get(job_id, []) if event.kind in STATUS_KINDS | {"checkpoint"}
        ]
        if history.feed and written != kept:
            yield f"{job_id}: wrote the events {written} and keeps {kept}"
        if last and last[-1].version != job.version:
            yield f"{job_id}: its version is {job.version}, and its last event {last[-1].version}"


def i12(history: History) -> Found:
    """Check that indexes and counters match the records, and that a walk shows each job once (I13, I14)."""
    for index in history.indexes:
        expected = {job_id for job_id, job in history.jobs.items() if _matches(index.select, job)}
        if len(set(index.ids)) != len(index.ids):
            yield f"{index.select}: a walk shows a job twice"
        if set(index.ids) != expected:
            yield f"{index.select}: shows {sorted(set(index.ids) ^ expected)[:5]} and should not, or the other way"
        if index.count is not None and index.count != len(expected):
            yield f"{index.select}: counts {index.count} of {len(expected)}"
        order = [
            (int(history.jobs[job_id].record["created"]), job_id) for job_id in index.ids if job_id in history.jobs
        ]
        if order != sorted(order, reverse=True):
            yield f"{index.select}: is out of order"


def _matches(select: Select, job: object) -> bool:
    record = job.record  # type: ignore[attr-defined]
    labels = record.get("labels", "").split("\x1f")
    return (
        (not select.types or record["type"] in select.types)
        and (not select.statuses or record["status"] in select.statuses)
        and all(f"{name}={value}" in labels for name, value in select.labels)
        and (not select.stalled or bool(record.get("stalled")))
    )


def _listed(events: list[Event]) -> str:
    return ", ".join(f"v{event.version} {event.kind}" for event in events)


def check(history: History) -> list[str]:
    """Return each violation of each invariant, with its number."""
    from tests.chaos.checker_runs import RUN_CHECKS

    checks: dict[str, Callable[[History], Found]] = {**CHECKS, **RUN_CHECKS}
    return [f"{name}: {violation}" for name, one in checks.items() for violation in one(history)]


CHECKS = {"I1": i1, "I2": i2, "I3": i3, "I4": i4, "I5": i5, "I6": i6, "I7": i7, "I8": i8, "I9": i9, "I10": i10,
          "I11": i11, "I12": i12}  # fmt: skip
