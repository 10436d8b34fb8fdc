"""The sweep for lost jobs, on every store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milepost import Settings
from milepost.core.transitions import plan_create
from milepost.manager.sync import JobManager
from milepost.run.sweeper import UNDISPATCHED_AFTER, Sweeper
from milepost.stores.ids import new_operation_id
from milepost.stores.protocol import Write
from milepost.stores.sync_bridge import run_sync
from milepost.testing.conformance.harness import queue_job
from tests.run.lost_jobs import lose_jobs

pytestmark = pytest.mark.timing

MANY = 450
"""More than a store gives at once."""


def test_sweep_handles_any_number_of_due_jobs(manager: JobManager, options: Settings) -> None:
    store = manager.store
    lose_jobs(store, MANY)
    assert manager.count_jobs(status="running") == MANY
    assert run_sync(Sweeper(store, replace(options, lease=36000.0), manager.ttl).sweep()) == MANY
    assert manager.count_jobs(status="running") == 0


def test_sweep_leaves_new_jobs_to_processes_of_their_task_queue(manager: JobManager, options: Settings) -> None:
    """Many jobs that had just been submitted to a task queue kept a sweep from seeing all other jobs."""
    for job_id, age in (("new", 0), ("old", UNDISPATCHED_AFTER)):
        fields = queue_job(task_queue="celery", dispatch_after=str(-age))
        run_sync(manager.store.apply([Write(job_id, plan_create(fields, new_operation_id()))]))
    assert run_sync(Sweeper(manager.store, options, manager.ttl).sweep()) == 1
    stalled = {job.job_id: job.stalled for job in manager.list_jobs()}
    assert stalled == {"new": None, "old": "no process that can dispatch to celery is running"}
