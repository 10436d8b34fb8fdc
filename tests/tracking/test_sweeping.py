"""The sweep of what nobody speaks for any more; on every store."""

from __future__ import annotations

from milepost import Settings
from milepost.core.lifecycle import plan_create, plan_start
from milepost.manager.requests import submit_fields
from milepost.manager.synchronous import JobManager
from milepost.stores.driving import drive
from milepost.stores.ids import new_nonce, new_op
from milepost.stores.protocol import Write
from milepost.tracking.sweeper import Sweeper
from tests.waiting import until

MANY = 450
"""More than a store gives at once."""


def test_a_sweep_takes_all_that_is_due_however_many(manager: JobManager, options: Settings) -> None:
    store = manager.store
    ids = [f"lost-{number}" for number in range(MANY)]
    drive(store.apply([Write(job_id, plan_create(submit_fields("lost", params=None), new_op())) for job_id in ids]))
    starts = [plan_start(new_op(), nonce=new_nonce(), lease=1, worker=f"gone:{job_id}:1") for job_id in ids]
    before = drive(store.now())
    drive(store.apply([Write(job_id, start) for job_id, start in zip(ids, starts, strict=True)]))
    assert manager.count_jobs(status="running") == MANY
    until(lambda: drive(store.now()) > before + MANY + 1)
    assert drive(Sweeper(store, options, manager.ttl).sweep()) == MANY
    assert manager.count_jobs(status="running") == 0
