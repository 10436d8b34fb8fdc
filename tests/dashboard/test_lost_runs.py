"""A worker is killed: the page of its job says which run was lost, where it ran, and what came after."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from milepost import Jobs, Run
from tests.dashboard.conftest import Opened, axe
from tests.waiting import until

pytestmark = pytest.mark.timeout(120)

KILLED_WORKER = """
import sys, time
from milepost import Jobs, Run

jobs = Jobs(sys.argv[1])

@jobs.job("slow", max_attempts=3)
def slow(run: Run) -> None:
    print(run.job_id, flush=True)
    time.sleep(600)

jobs.submit(slow)
with jobs.run_workers():
    time.sleep(600)
"""


@pytest.fixture(params=["counted", "not counted"])
def counted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Give all processes a lease of 3 s, or only the worker that is killed: for the others it was never renewed then."""
    if request.param == "counted":
        monkeypatch.setenv("MILEPOST_LEASE", "3")
    return request.param == "counted"


def test_run_of_a_killed_worker_is_shown_as_lost(
    counted: bool, served: tuple[Jobs, str], opened: Opened, tmp_path: Path
) -> None:
    jobs, address = served
    command = [sys.executable, "-c", KILLED_WORKER, f"sqlite:///{tmp_path}/jobs.db"]
    lease = {**os.environ, "MILEPOST_LEASE": "3"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=lease) as worker:
        assert worker.stdout is not None
        try:
            job_id = worker.stdout.readline().strip()
            page = opened(f"{address}?page=job&job={job_id}&part=attempts")
            panel, timeline = page.get_by_role("tabpanel"), page.get_by_role("region", name="Timeline")
            expect(panel).to_contain_text("running for")
            until(lambda: renewed(jobs, job_id))
        finally:
            worker.kill()

    @jobs.job("slow", max_attempts=3)
    def slow(run: Run) -> None:
        """End at once."""

    with jobs.run_workers():
        expect(page.locator(".chip")).to_have_text("completed")
    end = "worker lost" if counted else "worker lost, not counted as a crash"
    first = timeline.get_by_role("listitem").nth(1)
    expect(first).to_have_text(re.compile(rf"Attempt 1 on [^:]+:{worker.pid}: {end}ran \d+.s"))
    expect(timeline).to_contain_text(f"Started again on {os.uname().nodename}:{os.getpid()}")
    expect(timeline).not_to_contain_text("in the queue")  # the time until the lease ended is none in the queue
    expect(panel.get_by_role("heading")).to_have_count(2)
    if counted:
        expect(panel.get_by_label("Error", exact=True)).to_contain_text("lost: lease expired")
    else:
        expect(panel).to_contain_text(f": {end}")
    expect(panel).to_contain_text(": completed")
    assert not axe(page)


def renewed(jobs: Jobs, job_id: str) -> bool:
    """Return whether the lease of a run was renewed since its start."""
    job = jobs.get_job(job_id)
    assert job is not None
    assert job.started_at is not None
    assert job.lease_expires_at is not None
    return (job.lease_expires_at - job.started_at).total_seconds() > 3.1
