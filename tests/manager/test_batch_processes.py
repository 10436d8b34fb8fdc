"""The process of a batch: its death leaves the batch to be continued, and a forked child does not end it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from milepost import Jobs, Run
from milepost.app import batches
from milepost.core.values import MemberCounts
from tests.waiting import PATIENCE, until

PROCESS = """
import sys, time
from milepost import Jobs
from milepost.app import batches
from milepost.app.batches import Batch
batches.STALE_AFTER = 0.5
jobs = Jobs(sys.argv[1])
with jobs.batch("b") as batch:
    batch.submit("load", {})
    print("open", flush=True)
    time.sleep(60)
"""


def test_batch_of_a_killed_process_is_stalled_and_can_be_continued(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(sqlite_url)

    @jobs.job("load")
    def load(run: Run) -> None: ...

    with jobs.run_workers():
        until(lambda: jobs.job_types())
        with subprocess.Popen([sys.executable, "-c", PROCESS, sqlite_url], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            last = jobs.batch("b").then(load)
            process.send_signal(signal.SIGKILL)
        until(lambda: (job := jobs.get_job("b")) and job.stalled)
        waiting = jobs.get_job(last.job_id)
        assert waiting is not None
        assert waiting.status == "pending"
        monkeypatch.setattr(batches, "ALIVE_INTERVAL", 0.01)
        with jobs.batch("b") as batch:
            until(lambda: (job := jobs.get_job("b")) and not job.stalled)
        assert jobs.wait(last, PATIENCE).status == "completed"
    assert batch.counts() == MemberCounts(total=1, completed=1)
    jobs.close()


FORKS = """
import os, sys
from milepost import Jobs
jobs, child = Jobs(sys.argv[1]), -1
try:
    with jobs.batch("b") as batch:
        batch.submit("load", {}, job_id="one")
        child = os.fork()
        if child == 0 and sys.argv[2] == "exits":
            sys.exit(0)
        if child > 0:
            os.waitpid(child, 0)
            batch.submit("load", {}, job_id="two")
finally:
    if child == 0:
        os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", ["leaves the block", "exits"])
def test_forked_child_does_not_end_parents_batch(sqlite_url: str, way: str) -> None:
    """Regression: a forked child that left the block closed the batch of its parent, or failed it and cancelled its jobs."""
    jobs = Jobs(sqlite_url)

    @jobs.job("load")
    def load(run: Run) -> None: ...

    with jobs.run_workers():
        until(lambda: jobs.job_types())
        command = [sys.executable, "-W", "ignore", "-c", FORKS, sqlite_url, way]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert jobs.wait("b", PATIENCE).status == "completed"
    assert jobs.batch("b").counts() == MemberCounts(total=2, completed=2)
    jobs.close()
