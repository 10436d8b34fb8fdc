"""The example of tenants that share an API, with workers that are killed: no limit is exceeded, and no job is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from milepost import Jobs
from tests.chaos.calibration import slowness

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.timing
def test_limits_hold_while_workers_are_killed(sqlite_url: str) -> None:
    environment = {
        **os.environ,
        "MILEPOST_URL": sqlite_url,
        "CALL_SECONDS": "0.05",
        "MILEPOST_LEASE": str(2 * slowness()),
        "MILEPOST_SWEEP": "0.3",
    }

    def process(*words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *words], cwd=EXAMPLES, env=environment)

    submitting = process("shared_capacity.py", "acme=20", "globex=5", "initech=5")
    assert submitting.wait(60) == 0
    jobs = Jobs(sqlite_url)
    command = ("-m", "milepost", "worker", "shared_capacity:jobs", "--concurrency", "8")
    workers = [process(*command) for _ in range(2)]
    kills, most = 0, 0
    try:
        while (done := len(jobs.list_jobs(status="completed", limit=1000))) < 60:
            (limit,) = jobs.limits()
            most = max(most, limit.leases)
            assert limit.leases <= 4, limit
            assert max(limit.partitions.values(), default=0) <= 2, limit
            if kills < 2 and limit.leases and done >= 5 * (kills + 1):
                workers[kills].kill()
                workers.append(process(*command))
                kills += 1
            time.sleep(0.02)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert (kills, most > 2) == (2, True)
    assert jobs.limits()[0].leases == 0
    jobs.close()
