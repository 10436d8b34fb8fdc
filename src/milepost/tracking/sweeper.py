"""The sweeper: what becomes of jobs for which nobody speaks any more. Owns when to look and what to plan for what is due;
the moves are the lifecycle's. Any process may sweep, and two at once are harmless: every change is guarded.
"""

from __future__ import annotations

import logging
import time
from collections import Counter

from milepost.core.change import Change
from milepost.core.encoding import to_json
from milepost.core.job import FailureKind, Job
from milepost.core.lifecycle import plan_expire, plan_hand_over, plan_lost, plan_quiet, plan_run_out, plan_stranded
from milepost.settings import Settings
from milepost.stores.ids import new_op
from milepost.stores.protocol import Due, Store, Write
from milepost.tracking.failures import of_record
from milepost.tracking.process import process_of

log = logging.getLogger("milepost.sweeper")
log.addHandler(logging.NullHandler())

HAND_OVER_AGAIN = 5_000_000
"""Microseconds after which another process may hand over a job whose hand-over was begun and not finished."""
UNREACHED = 60_000_000
"""Microseconds that a job may wait for a process of its engine before the record says that there is none."""
CRASH_MARK_SECONDS = 86_400.0
PURGE_EVERY = 60.0


class Sweeper:
    """Sweeps one store; `look` as often as you like, it sweeps at most once per interval.

    `engine` names the engine that this process can hand jobs to: `take_due` gives those that wait for it.
    """

    def __init__(self, store: Store, settings: Settings, ttl: float, engine: str | None = None) -> None:
        self._store = store
        self._engine = engine
        self._due: list[Job] = []
        self._settings = settings
        self._ttl = ttl
        self._next = 0.0
        self._next_purge = 0.0

    async def look(self) -> int:
        """Sweep if it is time; how many jobs were touched."""
        now = time.monotonic()
        if now < self._next:
            return 0
        self._next = now + self._settings.sweep_interval
        touched = await self.sweep()
        if now >= self._next_purge:
            self._next_purge = now + min(PURGE_EVERY, max(self._ttl, 1.0))
            touched += await self.purge()
        return touched

    async def sweep(self) -> int:
        """Find what is due and change it."""
        # Another process may come first at every interval, and not have this one's engine: then both look.
        interval = self._settings.sweep_interval if self._engine is None else 0.0
        touched = 0
        while True:
            found = await self._store.sweep(lease=self._settings.lease, interval=interval)
            due = await self._seen_to_here(found.due)
            changed = 0
            if due:
                together = Counter(_process(one.job) for one in due if one.kind == "lease")
                writes = [await self._plan(one, together[_process(one.job)]) for one in due]
                outcomes = (await self._store.apply(writes)).outcomes
                changed = sum(outcome.accepted for outcome in outcomes)
                self._due += [one.job for one, outcome in zip(due, outcomes, strict=True)
                              if outcome.case == 0 and one.job is not None and self._is_ours(one)]  # fmt: skip
            touched += changed
            if not found.more or not changed:
                return touched
            interval = 0.0  # it is the same sweep, which others leave to this process

    def take_due(self) -> list[Job]:
        """The jobs that this process has undertaken to hand over to its engine."""
        due, self._due = self._due, []
        return due

    def _is_ours(self, due: Due) -> bool:
        """Whether it is a job that waits for the engine of this process."""
        return _waits_for_engine(due) and due.job is not None and due.job.record.get("engine") == self._engine

    async def _seen_to_here(self, found: list[Due]) -> list[Due]:
        """What is due without the jobs that wait for another engine, whose own processes will soon see to them."""
        if not any(_waits_for_engine(one) and not self._is_ours(one) for one in found):
            return found
        before = await self._store.now() - UNREACHED
        return [
            one for one in found
            if not _waits_for_engine(one) or self._is_ours(one) or (one.job and int(one.job.record["stale"]) < before)
        ]  # fmt: skip

    async def purge(self) -> int:
        """Remove the records whose time is over, in batches."""
        gone = 0
        while (batch := await self._store.purge(ttl=self._ttl)) > 0:
            gone += batch
        return gone

    async def _plan(self, due: Due, together: int) -> Write:
        if due.kind == "stopping":
            return Write(due.job_id, plan_run_out(new_op(), due.token), answer=False)
        job = due.job
        assert job is not None, "only a stopping lease can outlive its record"
        if due.kind == "lease":
            return Write(due.job_id, await self._lost(job, max(due.company, together)), answer=False)
        if due.kind == "deadline":
            text = f"not started before {job.not_after.isoformat() if job.not_after else 'its deadline'}"
            plan = plan_expire(new_op(), error=text, failure=of_record(job, FailureKind.EXPIRED, text))
            return Write(due.job_id, plan, answer=False)
        if self._is_ours(due):
            return Write(due.job_id, plan_hand_over(new_op(), HAND_OVER_AGAIN), answer=False)
        if job.driver == "engine":
            reason = f"no process that can hand it to {job.record.get('engine', 'its engine')} is at work"
            return Write(due.job_id, plan_stranded(new_op(), UNREACHED, reason), answer=False)
        text = "no update from the code that drives it"
        failure = of_record(job, FailureKind.LOST, text)
        return Write(due.job_id, plan_quiet(new_op(), error=text, failure=failure, reason=text), answer=False)

    async def _lost(self, job: Job, company: int) -> Change:
        """A run whose lease ran out. When its process took several runs with it, none is charged."""
        text = f"the process of {job.worker or 'its run'} is gone: its lease ran out"
        process = _process(job)
        # An engine runs suspects beside others as well: their second crash counts, or a poison job would go on for ever.
        suspect = job.driver == "engine" and job.record.get("suspect") == "1"
        charged = suspect or (company <= 1 and not await self._crashed_with_company(process))
        if company > 1 and process:
            await self._store.shelf_put(f"crash/{process}", to_json(company, "company"), ttl=CRASH_MARK_SECONDS)
        log.warning("job %s (%s): %s%s", job.job_id, job.job_type, text, "" if charged else "; not charged")
        limit = int(job.record.get("max_crashes") or 1)
        loop = f"crashed {job.crashes + 1} times; the last time {text}"
        return plan_lost(
            new_op(),
            error=text,
            failure=of_record(job, FailureKind.LOST, text),
            crash_loop=of_record(job, FailureKind.CRASH_LOOP, loop),
            crashes_left=limit - 1 if charged else None,
        )

    async def _crashed_with_company(self, process: str) -> bool:
        return bool(process) and await self._store.shelf_get(f"crash/{process}") is not None


def _waits_for_engine(due: Due) -> bool:
    return due.kind == "stale" and due.job is not None and due.job.driver == "engine"


def _process(job: Job | None) -> str:
    """The process that a job ran in; a process may have several workers, which add a number to its name."""
    return process_of(job.worker or "") if job is not None else ""
