"""Jobs whose worker is gone and whose leases have expired, for tests of the sweep."""

from __future__ import annotations

from milepost.core.transitions import plan_create, plan_start
from milepost.manager.validation import submit_fields
from milepost.stores.ids import new_nonce, new_operation_id
from milepost.stores.protocol import Store, Write
from milepost.stores.sync_bridge import run_sync
from tests.waiting import until


def lose_jobs(store: Store, count: int) -> None:
    """Start this number of jobs and wait until their leases have expired. Nothing sweeps meanwhile."""
    ids = [f"lost-{number}" for number in range(count)]
    run_sync(
        store.apply(
            [Write(job_id, plan_create(submit_fields("lost", params=None), new_operation_id())) for job_id in ids]
        )
    )
    starts = [plan_start(new_operation_id(), nonce=new_nonce(), lease=1, worker=f"gone:{job_id}:1") for job_id in ids]
    before = run_sync(store.now())
    run_sync(store.apply([Write(job_id, start) for job_id, start in zip(ids, starts, strict=True)]))
    until(lambda: run_sync(store.now()) > before + count + 1)
