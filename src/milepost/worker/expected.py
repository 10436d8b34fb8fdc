"""When a pending job is expected to start: from who is before it, the slots of the workers that have its type, and how long
earlier runs took. Owns the play of the queue; decides nothing, and reads only when it is asked.

The queue is played several times: each slot becomes free when its run ends, and takes the next job; how long a run takes is
drawn from the earlier runs of its type, and for one that runs already from its own range. The answer is the range of the
starts, 10th to 90th percentile. Nothing is said where something that counts is not known.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf

from milepost.core.encoding import moment, to_json
from milepost.core.job import Eta, Job, JobStatus
from milepost.stores.protocol import Position, Select, Store
from milepost.tracking.digests import read_lessons
from milepost.worker.published import WorkerEntry, read_types, read_workers

PLAYS = 20
LOW, HIGH = 1, 18
"""The places of the 10th and the 90th percentile among the plays in their order."""
AHEAD_MAX = 1000
"""Nothing is said of jobs that more than so many are before."""
WAITING_MAX = 5000
"""Nothing is said while more jobs than these wait: the lists are read from the newest end."""
PAGE = 1000


@dataclass(slots=True)
class Queue:
    """What a play needs. Times are seconds from now; a limit is the most runs of a type at once."""

    now: int
    waiting: list[Job]
    running: list[Job]
    slots: int
    limits: Mapping[str, int]
    paused: frozenset[str]
    took: Mapping[str, Sequence[float]]


async def expected_starts(store: Store, jobs: Iterable[Job] | None = None) -> dict[str, Eta]:
    """The expected starts of jobs that wait for a worker, by id: of these, or of all. What is not known is left out.

    Five round trips, one more for each type, and one for each 1,000 jobs that wait. None when none of the jobs waits.
    """
    asked = None if jobs is None else {job.job_id: _type(job) for job in jobs if _waits(job)}
    if asked is not None and not asked:
        return {}
    workers = [worker for worker in await read_workers(store) if not worker.draining]
    found: dict[str, Eta] = {}
    for types in _groups(workers):
        if asked is None or types.intersection(asked.values()):
            queue = await _read(store, types, [worker for worker in workers if types & set(worker.types)])
            found.update(play(queue) if queue is not None else {})
    return found


def told(job: Job, starts: Mapping[str, Eta]) -> Job:
    """The job with its expected start, when there is one."""
    eta = starts.get(job.job_id)
    if eta is None:
        return job
    text = to_json({"earliest": eta.earliest, "latest": eta.latest}, "expected_start")
    return Job.stored(job.job_id, {**job.record, "expected_start": text})


def _waits(job: Job) -> bool:
    return job.status is JobStatus.PENDING and job.driver == "worker" and job.waiting_for is None


def _type(job: Job) -> str:
    return job.record.get("queue") or job.job_type


def _groups(workers: Sequence[WorkerEntry]) -> list[set[str]]:
    """The types that compete for the same workers."""
    groups: list[set[str]] = []
    for worker in workers:
        types = set(worker.types)
        for group in groups:
            if group & types:
                types |= group
        groups = [*(group for group in groups if not group & types), types]
    return groups


async def _read(store: Store, types: set[str], workers: Sequence[WorkerEntry]) -> Queue | None:
    """The queue of some types; None when it is too long."""
    named = tuple(sorted(types))
    waiting: list[Job] = []
    after: Position | None = None
    while True:
        page = await store.select(Select(named, (JobStatus.PENDING.value,)), PAGE, after)
        waiting += page
        if len(waiting) > WAITING_MAX:
            return None
        if len(page) < PAGE:
            break
        after = Position(int(page[-1].record["created"]), page[-1].job_id)
    running = await store.select(Select(named, (JobStatus.RUNNING.value,)), PAGE)
    set_limits = await store.limits()
    known = {one.name: one for one in await read_types(store)}
    limits = {name: limit for name, one in known.items() if (limit := one.concurrency) is not None}
    limits.update((name, limit) for name, (limit, _) in set_limits.items() if limit is not None)
    needed = {_type(job) for job in (*waiting, *running)}
    return Queue(
        now=await store.now(),
        waiting=[job for job in waiting if _waits(job)],
        running=[job for job in running if job.driver == "worker"],
        slots=sum(worker.concurrency for worker in workers),
        limits=limits,
        paused=frozenset(name for name, (_, paused) in set_limits.items() if paused),
        took={name: [lesson.seconds for lesson in await read_lessons(store, name)] for name in sorted(needed)},
    )


def play(queue: Queue) -> dict[str, Eta]:
    """The expected start of each waiting job of which it can be known, by id."""
    due = [job for job in queue.waiting if _type(job) not in queue.paused]
    due.sort(key=lambda job: (_begins(queue, job) > 0, -job.priority, job.created_at, job.job_id))
    due = due[: AHEAD_MAX + 1]
    chance = random.Random(len(due))  # the same queue gives the same answer
    starts: list[list[float]] = [[] for _ in due]
    for _ in range(PLAYS):
        for number, at in enumerate(_play_once(queue, due, chance)):
            starts[number].append(at)
    found = {}
    for job, times in zip(due, starts, strict=True):
        times.sort()
        if times[HIGH] < inf:
            low, high = (moment(queue.now + int(at * 1000) * 1000) for at in (times[LOW], times[HIGH]))
            found[job.job_id] = Eta(low.isoformat(timespec="milliseconds"), high.isoformat(timespec="milliseconds"))
    return found


def _play_once(queue: Queue, due: Sequence[Job], chance: random.Random) -> Iterable[float]:
    """One course of the queue: when each job starts, in seconds from now."""
    free = [0.0] * queue.slots
    by_type = {name: [0.0] * limit for name, limit in queue.limits.items()}
    for job in queue.running:
        ends = _rest(queue, job, chance)
        if free:
            heapq.heapreplace(free, ends)
        if by_type.get(_type(job)):
            heapq.heapreplace(by_type[_type(job)], ends)
    for job in due:
        lanes = by_type.get(_type(job))
        slot = free[0] if free else inf
        lane = 0.0 if lanes is None else lanes[0] if lanes else inf
        start = max(slot, lane, _begins(queue, job))
        yield start
        if start == inf:
            continue
        took = queue.took.get(_type(job), ())
        ends = start + (chance.choice(took) if took else inf)
        if start <= slot:  # one that waits for its type leaves the slot to others
            heapq.heapreplace(free, ends)
        if lanes:
            heapq.heapreplace(lanes, ends)


def _begins(queue: Queue, job: Job) -> float:
    """Seconds until a job may begin at all."""
    return max(0.0, (int(job.record.get("not_before") or 0) - queue.now) / 1_000_000)


def _rest(queue: Queue, job: Job, chance: random.Random) -> float:
    """How long a run still needs: within its own range, else as an earlier run that took longer than it has until now."""
    if job.stalled:
        return inf
    if job.eta is not None:
        low, high = (
            datetime.fromisoformat(text).timestamp() - queue.now / 1_000_000
            for text in (job.eta.earliest, job.eta.latest)
        )
        return max(0.0, chance.uniform(low, high))
    spent = (queue.now - int(job.record.get("started") or queue.now)) / 1_000_000
    longer = [seconds - spent for seconds in queue.took.get(_type(job), ()) if seconds > spent]
    return chance.choice(longer) if longer else inf
