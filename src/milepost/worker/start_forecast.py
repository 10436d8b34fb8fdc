"""When a pending job is expected to start, and what it waits for: a simulation of the queue of its workers.

In a simulation each slot becomes free when its run ends, and takes the next job. The duration of a run is drawn from
earlier runs of its type; the rest of a current run from its ETA. The answer is the 10th to the 90th percentile of the
starts. There is none if something that matters is unknown.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf

from milepost.core.job import Eta, Job, JobStatus
from milepost.core.limits import Limit, queue_name
from milepost.core.placement import earliest_start, later_start
from milepost.core.serialization import US, from_micros, to_json
from milepost.core.values import WaitingFor
from milepost.run.forecast.history import read_profiles
from milepost.stores.protocol import Position, Select, Store
from milepost.stores.query import position
from milepost.worker.registry import WorkerEntry, read_types, read_workers

SIMULATIONS = 20
LOW, HIGH = 1, 18
"""The ranks of the 10th and the 90th percentile among the simulations."""
MAX_AHEAD = 1000
"""Jobs with more jobs ahead of them get no estimate."""
MAX_WAITING = 5000
"""With more pending jobs there is no estimate: lists are read from the newest end."""
PAGE = 1000
EXACT_AHEAD = 100
"""Above this the number of jobs ahead is rounded down, so that a long queue does not change every job's line at each start."""


@dataclass(slots=True)
class Queue:
    """The input of a simulation. Times are seconds from now; a limit is a maximum number of concurrent runs."""

    now: int
    waiting: list[Job]
    running: list[Job]
    slots: int
    limits: Mapping[str, int]
    paused: frozenset[str]
    took: Mapping[str, Sequence[float]]


@dataclass(slots=True)
class Forecast:
    """What is known of the jobs that wait for a worker: when each is expected to start, and what it waits for."""

    now: int
    starts: Mapping[str, Eta]
    ahead: Mapping[str, int]
    """How many due jobs are before each in the queue of its workers."""
    served: frozenset[str]
    """What workers claim, as `WorkerEntry.queues`, and the types of workers of a task queue."""
    paused: frozenset[str]
    limits: Mapping[str, Limit]
    """The limits, by limit key."""
    held: Mapping[str, int]
    """The number of leases, by slot and by limit key."""

    def describe(self, job: Job) -> Job:
        """Return the job with its expected start and what it waits for; any other job as it is."""
        if not waits(job):
            return job
        fields: dict[str, str] = {}
        eta = self.starts.get(job.job_id)
        if eta is not None and _type(job) in self.served:
            fields["expected_start"] = to_json({"earliest": eta.earliest, "latest": eta.latest}, "expected_start")
        reason = self._reason(job)
        if reason is not None:
            fields["waiting_for"] = to_json({"code": reason.code, "params": reason.params}, "waiting_for")
        return Job.stored(job.job_id, {**job.record, **fields, "known_at": str(self.now)})

    def _reason(self, job: Job) -> WaitingFor | None:
        name, queue, later = job.job_type, _type(job), later_start(job.record, self.now)
        if job.run_by == "external":
            return later
        if name in self.paused:
            return WaitingFor("paused", {"job_type": name})
        if queue not in self.served:
            code = "no_worker" if queue == name else "queue_not_served"
            return WaitingFor(code, {"job_type": name, "queue": job.queue})
        return later or self._limit_reached(job) or self._behind(job)

    def _limit_reached(self, job: Job) -> WaitingFor | None:
        key, _, partition = job.record.get("slot", job.job_type).partition(US)
        limit = self.limits.get(key, Limit())
        if limit.gate > self.now:
            return WaitingFor("gate_closed", {"limit_key": key, "at": from_micros(limit.gate).isoformat()})
        if limit.rate is not None and limit.opens_at(self.now) > self.now:
            return WaitingFor("rate_reached", {"limit_key": key, "rate": str(limit.rate)})
        if limit.running is not None and self.held.get(key, 0) >= limit.running:
            return WaitingFor("limit_reached", {"job_type": key, "limit": limit.running})
        most = limit.per_partition
        if partition and most is not None and self.held.get(f"{key}{US}{partition}", 0) >= most:
            return WaitingFor("partition_limit_reached", {"limit_key": key, "partition": partition, "limit": most})
        return None

    def _behind(self, job: Job) -> WaitingFor | None:
        count = self.ahead.get(job.job_id, 0)
        if count > EXACT_AHEAD:
            return WaitingFor("many_jobs_ahead", {"count": count // EXACT_AHEAD * EXACT_AHEAD})
        return WaitingFor("jobs_ahead", {"count": count}) if count else None


async def forecast(store: Store, jobs: Iterable[Job] | None = None) -> Forecast | None:
    """Return what is known of jobs that wait for a worker: of these, or of all. None when none of the jobs waits.

    Five round trips, and for each set of types with workers of their own one for the running jobs, one for each 1,000
    pending ones, and one for each type.
    """
    asked = None if jobs is None else {_type(job) for job in jobs if waits(job)}
    if asked is not None and not asked:
        return None
    workers = [worker for worker in await read_workers(store) if not worker.draining]
    now, limits, held = await store.now(), await store.limits(), await store.held_slots()
    for one in await read_types(store):
        limit = limits.get(one.name, Limit())
        if limit.running is None:
            limits[one.name] = limit._replace(running=one.concurrency)
    at_once = {name: limit.running for name, limit in limits.items() if limit.running is not None}
    paused = frozenset(name for name, limit in limits.items() if limit.paused)
    starts: dict[str, Eta] = {}
    ahead: dict[str, int] = {}
    for types in _groups(workers):
        # When the jobs of a rate or a closed gate start is not known.
        paced = any(limits[name].rate is not None or limits[name].gate > now for name in types & limits.keys())
        if not paced and (asked is None or types & asked):
            slots = sum(worker.concurrency for worker in workers if types & set(worker.types))
            queue = Queue(now, [], [], slots, at_once, paused, {})
            if await _fill(queue, store, types):
                starts |= simulate(queue)
                ahead |= {job.job_id: place for place, job in enumerate(_due(queue)) if _begins(queue, job) == 0}
    served = frozenset(name for worker in workers for name in worker.queues or worker.types)
    return Forecast(now, starts, ahead, served, paused, limits, held)


def waits(job: Job) -> bool:
    """Return whether a job waits for a worker of ours or for a time, and for nothing that its store knows already."""
    ours = job.run_by == "worker" or job.queue == job.job_type
    return (
        (ours or (job.run_by == "external" and earliest_start(job.record) > 0))
        and job.status is JobStatus.PENDING
        and job.waiting_for is None
    )


def _type(job: Job) -> str:
    return queue_name(job.record.get("ready") or job.job_type)


def _groups(workers: Sequence[WorkerEntry]) -> list[set[str]]:
    """Return the sets of types that compete for the same workers."""
    groups: list[set[str]] = []
    for worker in workers:
        types = set(worker.types)
        for group in groups:
            if group & types:
                types |= group
        groups = [*(group for group in groups if not group & types), types]
    return groups


async def _fill(queue: Queue, store: Store, types: set[str]) -> bool:
    """Read the jobs of some types, and how long earlier ones took, into their queue. Return False if it is too long, or if
    partitions take turns in it, which the simulation does not know."""
    named = tuple(sorted(types))
    waiting: list[Job] = []
    after: Position | None = None
    while True:
        page = await store.select(Select(named, (JobStatus.PENDING.value,)), PAGE, after)
        waiting += page
        if len(waiting) > MAX_WAITING or any(US in job.record.get("ready", "") for job in page):
            return False
        if len(page) < PAGE:
            break
        after = position(page[-1])
    running = await store.select(Select(named, (JobStatus.RUNNING.value,)), PAGE)
    queue.waiting = [job for job in waiting if waits(job) and job.queue == job.job_type]
    queue.running = [job for job in running if job.run_by == "worker"]
    needed = {_type(job) for job in (*waiting, *running)}
    queue.took = {name: [profile.seconds for profile in await read_profiles(store, name)] for name in sorted(needed)}
    return True


def simulate(queue: Queue) -> dict[str, Eta]:
    """Return the expected start of each waiting job, by id; jobs with an unknown start are left out."""
    due = _due(queue)[: MAX_AHEAD + 1]
    chance = random.Random(len(due))  # the same queue gives the same answer
    starts: list[list[float]] = [[] for _ in due]
    for _ in range(SIMULATIONS):
        for number, at in enumerate(_simulate_once(queue, due, chance)):
            starts[number].append(at)
    found = {}
    for job, times in zip(due, starts, strict=True):
        times.sort()
        if times[HIGH] < inf:
            low, high = (from_micros(queue.now + int(at * 1000) * 1000) for at in (times[LOW], times[HIGH]))
            found[job.job_id] = Eta(low.isoformat(timespec="milliseconds"), high.isoformat(timespec="milliseconds"))
    return found


def _due(queue: Queue) -> list[Job]:
    """Return the jobs that may start, in the order in which they do."""
    due = [job for job in queue.waiting if _type(job) not in queue.paused]
    due.sort(key=lambda job: (_begins(queue, job) > 0, -job.priority, job.created_at, job.job_id))
    return due


def _simulate_once(queue: Queue, due: Sequence[Job], chance: random.Random) -> Iterable[float]:
    """Yield when each job starts in one simulation, in seconds from now."""
    free = [0.0] * queue.slots
    by_type = {name: [0.0] * limit for name, limit in queue.limits.items()}
    for job in queue.running:
        ends = _rest(queue, job, chance)
        if free:
            heapq.heapreplace(free, ends)
        if by_type.get(_type(job)):
            heapq.heapreplace(by_type[_type(job)], ends)
    for job in due:
        type_slots = by_type.get(_type(job))
        slot = free[0] if free else inf
        type_slot = 0.0 if type_slots is None else type_slots[0] if type_slots else inf
        start = max(slot, type_slot, _begins(queue, job))
        yield start
        if start == inf:
            continue
        took = queue.took.get(_type(job), ())
        ends = start + (chance.choice(took) if took else inf)
        if start <= slot:  # a job limited by its type leaves the slot free
            heapq.heapreplace(free, ends)
        if type_slots:
            heapq.heapreplace(type_slots, ends)


def _begins(queue: Queue, job: Job) -> float:
    """Return the seconds until a job may start at all."""
    return max(0.0, (earliest_start(job.record) - queue.now) / 1_000_000)


def _rest(queue: Queue, job: Job, chance: random.Random) -> float:
    """Return how long a run still needs: within its ETA, else like an earlier run that took longer."""
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
