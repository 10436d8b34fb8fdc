"""Finds jobs that wait for themselves, with a bounded number of reads in each sweep.

A submit refuses such a job, but it does not see very long cycles, nor those that two submits close at the same moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from milepost.core.job import Job
from milepost.core.transitions import plan_flag_cycle, plan_no_cycle
from milepost.core.transitions.change import Change
from milepost.core.transitions.create import CYCLE_CHECK
from milepost.stores.cycles import CycleSearch, Progress
from milepost.stores.protocol import Store

READS = 300
"""The most groups and jobs together that one sweep reads."""
MAX_SEARCHES = 100
"""The most searches that are continued in later sweeps."""
SOON = 5_000_000
"""Microseconds after which a search is continued."""
MIN_PAUSE, MAX_PAUSE = int(CYCLE_CHECK), 3_600_000_000
"""Microseconds between two complete searches for one job."""

log = logging.getLogger("milepost.sweeper")
log.addHandler(logging.NullHandler())


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
