"""The worker of a main thread: what it says at its end."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading

import pytest

from milepost import Jobs, Run, Settings
from milepost.worker import run_worker
from tests.waiting import PATIENCE, until
from tests.worker.conftest import Signals


@pytest.mark.timing
@pytest.mark.parametrize("is_finished", [False, True])
def test_stop_in_memory_logs_lost_jobs(is_finished: bool, signals: Signals, caplog: pytest.LogCaptureFixture) -> None:
    """A program with its jobs in memory ended at SIGTERM with exit code 0, and nothing said that they were lost."""
    jobs = Jobs("memory://", options=Settings(grace=5.0))
    before = signal.getsignal(signal.SIGTERM)

    @jobs.job("count")
    def count(run: Run) -> None:
        for _ in run.each(range(3) if is_finished else itertools.count()):
            signals.began.set()
            signals.let_go.wait(0.01)

    def terminate() -> None:
        until(lambda: signal.getsignal(signal.SIGTERM) is not before)
        assert signals.began.wait(PATIENCE)
        os.kill(os.getpid(), signal.SIGTERM)

    job = jobs.submit(count)
    if is_finished:
        jobs.wait(job.job_id, "30s")
    thread = threading.Thread(target=terminate)
    thread.start()
    with caplog.at_level(logging.WARNING, "milepost.worker"):
        assert run_worker(jobs, concurrency=1) == 0
    thread.join()
    lost = [record.getMessage() for record in caplog.records if "lost" in record.getMessage()]
    assert lost == ([] if is_finished else ["unfinished jobs lost: 1 (the store is in memory)"])
    jobs.close()
