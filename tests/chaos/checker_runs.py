"""Check the invariants of budgets, checkpoints, limits, times, receipts and leftovers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from milepost.core.events import Event
from tests.chaos.history import History, at

CRASH_BUDGET = 3
Found = Iterator[str]
LEAVES = ("completed", "failed", "retrying", "released", "deleted")


def i15(history: History) -> Found:
    """Check that attempts and crashes stay within their budgets."""
    for job_id, job in history.jobs.items():
        budgets = 1 + len(history.did(job_id, "retry", "done", "unknown"))
        if job.attempt > job.max_attempts:
            yield f"{job_id}: attempt {job.attempt} of {job.max_attempts}"
        if job.crashes > CRASH_BUDGET * budgets:
            yield f"{job_id}: {job.crashes} crashes with {budgets} budgets of {CRASH_BUDGET}"
        if job.attempt < 0:
            yield f"{job_id}: attempt {job.attempt}"


def i16(history: History) -> Found:
    """Check that a run gets the last acknowledged checkpoint, or a later one that was sent."""
    for job_id, lines in history.runs_of.items():
        if len(history.did(job_id, "submit", "asked")) > 1:
            continue  # the id was used again: a new job begins without
        sent = {(line["fence"], line["n"]) for line in lines if line["do"] == "step"}
        acked = [(line["fence"], line["n"]) for line in lines if line["do"] == "acked"]
        for line in lines:
            if line["do"] != "start":
                continue
            given = line.get("given")
            have = (given["fence"], given["n"]) if given else (0, 0)
            due = max((one for one in acked if one[0] < line["fence"]), default=(0, 0))
            if given and have not in sent:
                yield f"{job_id}: fence {line['fence']} received a checkpoint that no run sent: {have}"
            if have < due:
                yield f"{job_id}: fence {line['fence']} was given {have}, and {due} was acknowledged"


def i17(history: History) -> Found:
    """Check that limits of concurrency and uniqueness hold at each event of the feed."""
    types: dict[str, str] = {line["job"]: line["type"] for line in history.calls if "type" in line}
    keys: dict[str, str] = {line["job"]: line["key"] for line in history.calls if line.get("key")}
    holders: defaultdict[str, set[str]] = defaultdict(set)
    active: defaultdict[str, set[str]] = defaultdict(set)
    for event in history.feed:
        job_id, queue = event.job_id, types.get(event.job_id, "")
        if event.kind == "running":
            holders[queue].add(job_id)
            limit = history.limits.get(queue)
            if limit is not None and len(holders[queue]) > limit:
                yield f"{queue}: {len(holders[queue])} leases with a limit of {limit}: {sorted(holders[queue])}"
        elif event.kind in LEAVES or (event.kind == "cancelled"):
            holders[queue].discard(job_id)  # a draining lease may hold on; that is not in the feed
        if key := keys.get(job_id):
            if event.kind in ("created", "retrying", "running", "released"):
                active[key].add(job_id)
                if len(active[key]) > 1:
                    yield f"unique key {key}: {sorted(active[key])} at once"
            elif event.kind in ("completed", "failed", "cancelled", "deleted"):
                active[key].discard(job_id)


def _with_leases(history: History) -> Iterator[tuple[Event, set[str], bool]]:
    """Yield each event with the jobs that have a lease after it, live or draining, and whether its job was stopping before.

    A draining lease lasts until its receipt is in the feed, or its delete, after which there is no receipt.
    """
    holders: set[str] = set()
    stopping: set[str] = set()
    for event in history.feed:
        job_id, was_stopping = event.job_id, event.job_id in stopping
        is_confirmed = event.data.get("stop_confirmed") in ("0", "1")
        if event.kind == "running":
            holders.add(job_id)
        elif event.kind == "cancelled" and not is_confirmed:
            stopping.add(job_id)
        elif event.kind == "cancelled" and event.data.get("stop_how") == "never_started" and was_stopping:
            pass  # a wrong event, see `i17_stopping`
        elif event.kind in ("receipt", "deleted", "cancelled") or (event.kind in LEAVES and not was_stopping):
            stopping.discard(job_id)
            holders.discard(job_id)
        yield event, holders, was_stopping


def i17_stopping(history: History) -> Found:
    """Check that a draining lease keeps its slot, and keeps its job from starting."""
    types: dict[str, str] = {line["job"]: line["type"] for line in history.calls if "type" in line}
    for event, holders, was_stopping in _with_leases(history):
        job_id, queue = event.job_id, types.get(event.job_id, "")
        if event.kind == "running":
            if was_stopping:
                yield f"{job_id} was started while its last run was still stopping"
            limit, held = history.limits.get(queue), sorted(one for one in holders if types.get(one) == queue)
            if limit is not None and len(held) > limit:
                yield f"{queue}: {held} are live or stopping, with a limit of {limit}"
        elif event.kind == "cancelled" and event.data.get("stop_how") == "never_started" and was_stopping:
            yield f"{job_id} is said to have never started while its last run was still stopping"


def i33(history: History) -> Found:
    """Check that no partition has more leases, live or draining, than its limit, which is the same all the time."""
    places = {line["job"]: (line["type"], line["partition"]) for line in history.calls if "partition" in line}
    for event, holders, _ in _with_leases(history):
        if event.kind == "running" and (place := places.get(event.job_id)) is not None:
            limit, held = history.per_partition.get(place[0]), sorted(j for j in holders if places.get(j) == place)
            if limit is not None and len(held) > limit:
                yield f"{place}: {held} are live or stopping, with a limit of {limit} per partition"


def _explicit(history: History, job_id: str) -> bool:
    return bool(history.did(job_id, "retry", "done", "unknown"))


def i18(history: History) -> Found:
    """Check that nothing starts before `not_before`, or for the first time after `not_after`."""
    bounds = {
        line["job"]: (line.get("not_before"), line.get("not_after"))
        for line in history.calls
        if line["do"] == "submit" and (line.get("not_before") or line.get("not_after"))
    }
    for job_id, (first, last) in bounds.items():
        has_started = False
        for event in history.feed_of.get(job_id, []):
            if event.kind != "running" or _explicit(history, job_id):
                continue  # an explicit retry clears both
            if first is not None and at(event) < first:
                yield f"{job_id} started {(first - at(event)) / 1e6:.3f} s too early"
            if last is not None and at(event) > last and not has_started:
                yield f"{job_id} started {(at(event) - last) / 1e6:.3f} s too late"
            has_started = True


def i22(history: History) -> Found:
    """Check that after the faults no job runs or waits, and no lease or process is left."""
    for job_id, job in history.jobs.items():
        if not job.is_terminal:
            yield f"{job_id} ({job.job_type}) is {job.status} ({job.waiting_for or 'nothing in its way'})"
    for job_id, token, _ in history.draining_leases:
        yield f"{job_id}: the draining lease {token} is left"
    for process in history.children:
        yield f"a process is left: {process}"


def i26(history: History) -> Found:
    """Check that a run writes no line after its stop was reported as confirmed.

    "never_started" is about an attempt that did not begin, not about a zombie of an earlier attempt that had lost its
    lease.
    """
    for job_id, events in history.feed_of.items():
        starts = [line for line in history.runs_of.get(job_id, []) if line["do"] == "start"]
        began: int | None = None
        stopped: int | None = None
        for event in events:
            confirmed = event.data.get("stop_confirmed") == "1"
            if event.data.get("stop_how") == "lease_expired" and confirmed:
                yield f"{job_id}: a lease that ran out is reported as a confirmed stop"
            if event.kind == "running":
                began, stopped = at(event), None
            elif event.kind == "cancelled":
                its = [s["fence"] for s in starts if began is not None and began <= s["at"] <= at(event)]
                if event.data.get("stop_how") == "never_started":
                    stopped = None
                elif began is not None:  # else it is cancelled again while its run is still stopping
                    stopped = max(its) if its else None
                began = None
            if event.kind in ("receipt", "cancelled") and confirmed and stopped is not None:
                for line in history.runs_of[job_id]:
                    if line["fence"] == stopped and line["at"] > at(event):
                        yield f"{job_id}: fence {stopped} wrote {line['do']} after its stop was confirmed"


RUN_CHECKS = {
    "I15": i15,
    "I16": i16,
    "I17": i17,
    "I17 stopping": i17_stopping,
    "I18": i18,
    "I22": i22,
    "I26": i26,
    "I33": i33,
}
