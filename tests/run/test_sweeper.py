"""The sweep for lost jobs, on every store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milepost import Settings
from milepost.manager.sync import JobManager
from milepost.run.sweeper import Sweeper
from milepost.stores.sync_bridge import run_sync
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
