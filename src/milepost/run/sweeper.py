"""Recovers jobs whose run, worker or caller is gone, fires schedules, and removes records after their retention time.

Any process may sweep, and several at once are harmless: every change is guarded.

It also finds jobs that wait for themselves, with a bounded number of reads in each sweep. A submit refuses such a job, but
it does not see very long cycles, nor those that two submits close at the same moment.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable

from milepost.core.job import FailureKind, Job
from milepost.core.serialization import to_json
from milepost.core.transitions import (
    plan_dispatch,
    plan_drain_timeout,
    plan_expire,
    plan_flag_cycle,
    plan_lease_expired,
    plan_mark_stale,
    plan_no_cycle,
    plan_undispatchable,
)
from milepost.core.transitions.change import Change
from milepost.core.transitions.create import CYCLE_CHECK
from milepost.run.crash_report import crash_loop_line, report_lost_run
from milepost.run.locked_jobs import LockedJobs
from milepost.run.process_identity import process_of_worker
from milepost.run.schedules import FiringTurn, fire_due
from milepost.settings import Settings
from milepost.stores.clock import SYSTEM_CLOCK, Clock
from milepost.stores.cycles import CycleSearch, Progress
from milepost.stores.ids import SYSTEM_IDS, Ids
from milepost.stores.protocol import DueItem, Store, Write
from milepost.stores.retention import purge_older

log = logging.getLogger("milepost.sweeper")
log.addHandler(logging.NullHandler())

REDISPATCH_DELAY = 5_000_000
"""Microseconds after which another process may dispatch a job whose dispatch was started and not finished."""
UNDISPATCHED_AFTER = 60_000_000
"""Microseconds that a job may wait for a process of its task queue before the record says that there is none."""
CRASH_MARK_SECONDS = 86_400.0
PURGE_INTERVAL = 60.0
MAX_UNCHARGED_CRASHES = 10
"""A job that was lost this many times in a row together with others is charged anyway: no crash loop is endless."""
PURGE_BATCH = 200
MAX_TICK_SECONDS = 0.05
"""Seconds after which a step of a tick starts no further batch: its thread also renews leases and receives cancels."""


class Sweeper:
    """Sweeps one store. Call `tick` as often as you like: it sweeps at most once per interval.

    A tick is short; `is_behind` tells whether work is left for the next ticks. `steps` are its parts in order, for a thread
    that has more urgent requests to send between them. `task_queue` names the task queue that this process can dispatch to;
    `take_due` returns the jobs to dispatch.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        ttl: float,
        task_queue: str | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        ids: Ids = SYSTEM_IDS,
    ) -> None:
        self._monotonic = clock.monotonic
        self._new_operation_id = ids.new_operation_id
        self._store = store
        self._task_queue = task_queue
        self._due: list[Job] = []
        self._locked, self._locked_schedules = LockedJobs(log), LockedJobs(log)
        self._cycles = CycleChecks(store, self._new_operation_id)
        self._settings = settings
        self._ttl = ttl
        self._next = 0.0
        self._next_purge = 0.0
        self._more_due = False
        self._purge_before: int | None = None  # of the purge under way
        self._fires = False
        self._firing = FiringTurn(clock.monotonic)
        self.steps = (self._sweep_if_due, self._fire_if_swept, self._purge_if_due)

    @property
    def is_behind(self) -> bool:
        """Return whether the last tick left work to do."""
        return self._more_due or self._purge_before is not None or bool(self._firing.after)

    @property
    def is_due(self) -> bool:
        """Return whether a tick would query the store now."""
        return self.is_behind or self._monotonic() >= min(self._next, self._next_purge)

    async def tick(self) -> int:
        """Sweep and purge if it is time, for about MAX_TICK_SECONDS; return how many jobs were changed or removed."""
        return sum([await step() for step in self.steps])

    async def _sweep_if_due(self) -> int:
        now = self._monotonic()
        if not self._more_due and now < self._next:
            return 0
        self._next = max(self._next, now + self._settings.sweep_interval)
        touched = await self._sweep_until(now + MAX_TICK_SECONDS)
        self._fires = not self._more_due
        return touched

    async def _fire_if_swept(self) -> int:
        """Fire schedules, even if another process has swept: it may be unable to fire a schedule of this one."""
        if not self._fires and not self._firing.after:
            return 0
        self._fires = False
        self._firing.until = self._monotonic() + MAX_TICK_SECONDS
        return await fire_due(self._store, self._new_operation_id, self._locked_schedules, self._firing)

    async def _purge_if_due(self) -> int:
        now = self._monotonic()
        if self._more_due or (self._purge_before is None and now < self._next_purge):
            return 0
        self._next_purge = max(self._next_purge, now + min(PURGE_INTERVAL, max(self._ttl, 1.0)))
        return await self._purge_until(now + MAX_TICK_SECONDS)

    async def sweep(self) -> int:
        """Change all jobs that are due and create those of schedules; return how many were changed or created."""
        touched = await self._sweep_until(math.inf)
        return touched + await fire_due(self._store, self._new_operation_id, self._locked_schedules)

    async def _sweep_until(self, until: float) -> int:
        # Another process may always sweep first without having this task queue, so this process sweeps as well.
        interval = self._settings.sweep_interval if self._task_queue is None and not self._more_due else 0.0
        touched = 0
        self._cycles.begin_sweep()
        while True:
            found = await self._store.sweep(
                lease=self._settings.lease,
                interval=interval,
                task_queue=self._task_queue,
                unreached=UNDISPATCHED_AFTER / 1_000_000,
            )
            due = found.due
            changed = 0
            if due:
                siblings = Counter(_process(one.job) for one in due if one.kind == "lease")
                plans = [await self._plan(one, siblings[_process(one.job)]) for one in due]
                writes = [Write(one.job_id, plan, answer=False) for one, plan in zip(due, plans, strict=True)]
                outcomes = await self._locked.apply(self._store, writes)
                changed = sum(outcome.accepted for outcome in outcomes)
                self._due += [one.job for one, outcome in zip(due, outcomes, strict=True)
                              if outcome.branch == 0 and one.job is not None and self._is_ours(one)]  # fmt: skip
            touched += changed
            self._more_due = found.more and changed > 0
            if not self._more_due or self._monotonic() >= until:
                return touched
            interval = 0.0

    def take_due(self) -> list[Job]:
        """Return the jobs that this process has reserved for dispatch to its task queue."""
        due, self._due = self._due, []
        return due

    def _is_ours(self, due: DueItem) -> bool:
        """Return whether a due job waits for the task queue of this process."""
        return _awaits_dispatch(due) and due.job is not None and due.job.record.get("task_queue") == self._task_queue

    async def purge(self) -> int:
        """Remove all records whose retention time is over, in batches; return how many were removed."""
        return await purge_older(self._store, ttl=self._ttl, limit=PURGE_BATCH)

    async def _purge_until(self, until: float) -> int:
        before = self._purge_before
        if before is None:
            before = await self._store.now() - int(self._ttl * 1_000_000)
        gone = 0
        while True:
            batch, more = await self._store.purge(before=before, limit=PURGE_BATCH)
            gone += batch
            self._purge_before = before if more else None
            if not more or self._monotonic() >= until:
                return gone

    async def _plan(self, due: DueItem, siblings: int) -> Change:
        """Return the transition of what is due; `siblings` counts the expired leases of its process in this batch."""
        if due.kind == "stopping":
            return plan_drain_timeout(self._new_operation_id(), due.token)
        job = due.job
        assert job is not None, "only a draining lease can outlive its record"
        if due.kind == "lease":
            return await self._lease_expired(job, max(due.sibling_leases, siblings))
        if due.kind == "deadline":
            text = f"not started before {job.not_after.isoformat() if job.not_after else 'its deadline'}"
            failure = report_lost_run(job, FailureKind.EXPIRED, text)
            return plan_expire(self._new_operation_id(), error=text, failure=failure)
        if due.kind == "stale" and is_cycle_check(job):
            return await self._cycles.plan(job)
        if self._is_ours(due):
            return plan_dispatch(self._new_operation_id(), REDISPATCH_DELAY)
        if job.run_by == "external":
            reason = f"no process that can dispatch to {job.record.get('task_queue', 'its task queue')} is running"
            return plan_undispatchable(self._new_operation_id(), UNDISPATCHED_AFTER, reason)
        text = "no update from its caller"
        failure = report_lost_run(job, FailureKind.LOST, text)
        return plan_mark_stale(self._new_operation_id(), error=text, failure=failure, reason=text)

    async def _lease_expired(self, job: Job, sibling_leases: int) -> Change:
        """Return the transition for a run whose lease expired. If others were lost with it, it is not charged."""
        is_unrenewed = self._may_not_have_started(job)
        when = " before its first renewal; the code may not have started" if is_unrenewed else ""
        text = f"lease expired{when} (last held by {job.worker or 'an unknown worker'})"
        process = _process(job)
        # A task queue also runs suspects next to other jobs, so their second crash is charged: no crash loop is endless.
        times = int(job.record.get("suspect") or 0)
        charged = times >= (1 if job.run_by == "external" else MAX_UNCHARGED_CRASHES)
        if not charged and (times or not is_unrenewed):
            charged = sibling_leases <= 1 and not await self._had_sibling_crash(process)
        if sibling_leases > 1 and process:
            await self._store.kv_put(f"crash/{process}", to_json(sibling_leases, "company"), ttl=CRASH_MARK_SECONDS)
        log.warning("job %s (%s): %s%s", job.job_id, job.job_type, text, "" if charged else "; not charged")
        limit = int(job.record.get("max_crashes") or 1)
        loop = crash_loop_line(job.crashes + 1, text)
        return plan_lease_expired(
            self._new_operation_id(),
            error=loop if charged and job.crashes + 1 >= limit else text,
            failure=report_lost_run(job, FailureKind.LOST, text),
            crash_loop=report_lost_run(job, FailureKind.CRASH_LOOP, loop),
            crashes_left=limit - 1 if charged else None,
            token=job.record.get("token"),
        )

    def _may_not_have_started(self, job: Job) -> bool:
        """Return whether the run never renewed its lease nor reported anything: the reply to the claim may have been lost."""
        started = _micros(job, "started")
        is_unrenewed = _micros(job, "lease") - started <= self._settings.lease_micros
        return job.run_by == "worker" and is_unrenewed and _micros(job, "updated") <= started

    async def _had_sibling_crash(self, process: str) -> bool:
        return bool(process) and await self._store.kv_get(f"crash/{process}") is not None


def _awaits_dispatch(due: DueItem) -> bool:
    return due.kind == "stale" and due.job is not None and due.job.run_by == "external"


def _micros(job: Job, name: str) -> int:
    return int(job.record.get(name) or 0)


def _process(job: Job | None) -> str:
    """Return the process that a job ran in. A process may have several workers, which add a number to its name."""
    return process_of_worker(job.worker or "") if job is not None else ""


READS = 300
"""The most groups and jobs together that one sweep reads."""
MAX_SEARCHES = 100
"""The most searches that are continued in later sweeps."""
SOON = 5_000_000
"""Microseconds after which a search is continued."""
MIN_PAUSE, MAX_PAUSE = int(CYCLE_CHECK), 3_600_000_000
"""Microseconds between two complete searches for one job."""


class CycleChecks:
    """The checks of one process. A job is checked when it is as old as CYCLE_CHECK, and each time when it is twice as old."""

    def __init__(self, store: Store, new_operation_id: Callable[[], str]) -> None:
        self._store = store
        self._new_operation_id = new_operation_id
        self._search = CycleSearch(store)
        self._unfinished: dict[str, Progress] = {}

    def begin_sweep(self) -> None:
        """Grant the reads of a sweep."""
        self._search = CycleSearch(self._store, READS)

    async def plan(self, job: Job) -> Change:
        """Return the transition for a job whose check is due."""
        operation_id = self._new_operation_id()
        if "held" not in job.record:
            return plan_no_cycle(operation_id, MIN_PAUSE)
        progress = self._unfinished.pop(job.job_id, None)
        problem = ""
        if not self._search.is_spent:
            problem, progress = await self._search.check(job, progress)
        if problem:
            log.warning("job %s (%s): waits for itself: %s", job.job_id, job.job_type, problem)
            return plan_flag_cycle(operation_id, MIN_PAUSE, problem)
        if progress is None or not progress.is_over:
            if progress is not None and len(self._unfinished) < MAX_SEARCHES:
                self._unfinished[job.job_id] = progress
            # Until the search is over, an earlier flag stays.
            return (
                plan_flag_cycle(operation_id, SOON, job.stalled) if job.stalled else plan_no_cycle(operation_id, SOON)
            )
        age = int(job.record.get("stale") or 0) - int(job.record.get("created") or 0)
        return plan_no_cycle(operation_id, min(max(age, MIN_PAUSE), MAX_PAUSE))


def is_cycle_check(job: Job | None) -> bool:
    """Return whether a job that is due is due for such a check."""
    return job is not None and job.status.value == "pending" and "cycle_check" in job.record
