"""A worker is killed: the page of its job says which run was lost, where it ran, and what came after."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from milepost import Jobs, Run
from tests.chaos.calibration import slowness
from tests.dashboard.conftest import PATIENCE, Opened, axe
from tests.waiting import until

KILLED_WORKER = """
import os, signal, sys, time
from milepost import Jobs, Run

jobs = Jobs(sys.argv[1])

@jobs.job("slow", max_attempts=3)
def slow(run: Run) -> None:
    print(run.job_id, flush=True)
    if sys.argv[2] == "at once":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)

jobs.submit(slow)
with jobs.run_workers():
    time.sleep(600)
"""


@pytest.mark.parametrize("killed", ["later", "at once"])
def test_run_of_a_killed_worker_is_shown_as_lost(
    killed: str, served: tuple[Jobs, str], opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = 4 * slowness()  # seconds: a healthy run must outlast a busy moment
    monkeypatch.setenv("MILEPOST_LEASE", str(lease))
    jobs, address = served
    command = [sys.executable, "-c", KILLED_WORKER, f"sqlite:///{tmp_path}/jobs.db", killed]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        try:
            job_id = worker.stdout.readline().strip()
            job_page = f"{address}?page=job&job={job_id}&part=attempts"
            if killed == "later":  # a page that is open sees both the run and its end
                page = opened(job_page)
                expect(page.get_by_role("tabpanel")).to_contain_text("running for")
                until(lambda: renewed(jobs, job_id, lease))
        finally:
            worker.kill()

    @jobs.job("slow", max_attempts=3)
    def slow(run: Run) -> None:
        """End at once."""

    with jobs.run_workers():  # before the lease ends, or the job waits in the queue
        if killed == "at once":
            page = opened(job_page)
        expect(page.locator(".chip")).to_have_text("completed")
    panel, timeline = page.get_by_role("tabpanel"), page.get_by_role("region", name="Timeline")
    # Killed at once, the code of the job may not have started.
    end = "worker lost" if killed == "later" else "worker lost, not counted as a crash"
    first = timeline.get_by_role("listitem").nth(1)
    expect(first).to_have_text(re.compile(rf"Attempt 1 on [^:]+:{worker.pid}: {end}lost after \d+(\.\d)?\ss"))
    expect(timeline).to_contain_text(f"Started again on {os.uname().nodename}:{os.getpid()}")
    expect(timeline).not_to_contain_text("in the queue")  # the time until the lease ended is none in the queue
    expect(panel.get_by_role("heading")).to_have_count(2)
    expect(panel.get_by_label("Error", exact=True)).to_contain_text("lost: lease expired")
    expect(panel).to_contain_text(f": {end}")
    expect(panel).to_contain_text(": completed")
    assert not axe(page)


def test_stage_of_a_run_given_back_at_a_deploy_is_not_shown_as_running(
    served: tuple[Jobs, str], opened: Opened
) -> None:
    """Regression: its time went on while the job waited for its next run."""
    jobs, address = served
    begun = threading.Event()

    @jobs.job("rows")
    def rows(run: Run) -> None:
        for _ in run.each(range(100), stage="Rows", resume=True):
            begun.set()
            while True:  # until the drain
                run.check()
                time.sleep(0.02)

    with jobs.run_workers():
        job_id = jobs.submit(rows).job_id
        assert begun.wait(PATIENCE)
    page = opened(f"{address}?page=job&job={job_id}&part=attempts")
    timeline = page.get_by_role("region", name="Timeline")
    expect(timeline).to_contain_text(re.compile(r"Attempt 1 on [^ ]+: given back to the queue"))
    expect(page.get_by_role("tabpanel")).to_contain_text(": given back to the queue")
    stage = timeline.get_by_role("listitem").filter(has_text="Rows").last
    expect(stage).to_contain_text("0 of 100")
    expect(stage).not_to_contain_text("now")


def renewed(jobs: Jobs, job_id: str, lease: float) -> bool:
    """Return whether the lease of a run was renewed since its start."""
    job = jobs.get_job(job_id)
    assert job is not None
    assert job.started_at is not None
    assert job.lease_expires_at is not None
    return (job.lease_expires_at - job.started_at).total_seconds() > lease + 0.1
