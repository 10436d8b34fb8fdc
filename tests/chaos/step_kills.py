"""Runs of 20 steps in two workers, one of which is killed with SIGKILL again and again. `scripts/steps.py` measures them.

Each function must be called once, and at most once more for each interruption of its job; no step may begin with a value that was
replaced later. `python -m tests.chaos.step_kills` is such a worker.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from milepost import Jobs, Run
from milepost.stores.factory import open_store
from milepost.stores.sync_bridge import run_sync
from tests.chaos.parent_runs import end, wait_until_ready, work_until_killed

STEPS, SLOTS, WAITING = 20, 8, 32
STEP_SECONDS, KILL_SECONDS = 0.05, 1.0
PATIENCE = 600.0
_PROGRAM = "tests.chaos.step_kills"


def call(ledger: str, job_id: str, number: int, previous: str) -> str:
    """Return a new value, after noting the call and the value that it began with in a file that outlives a kill."""
    value = uuid.uuid4().hex
    with Path(ledger).open("a") as file:
        file.write(f"{job_id} {number} {previous or '-'} {value}\n")
    time.sleep(random.uniform(0, 2 * STEP_SECONDS))
    return value


def add_handlers(jobs: Jobs) -> None:
    """Add the handler to an application."""

    @jobs.job("steps", max_attempts=100)
    def steps(run: Run, ledger: str) -> list[str]:
        values = [""]
        for number in range(STEPS):
            values.append(run.step(f"step {number}", call, ledger, run.job_id, number, values[-1]))
        return values[1:]


def run_under_kills(url: str, ledger: Path, kills: int) -> tuple[list[str], int, int, int]:
    """Interrupt this many runs; return what is wrong, the interruptions, the calls beyond one a step, and the jobs."""
    environment = {
        **os.environ, "MILEPOST_URL": url, "MILEPOST_NAMESPACE": "steps", "MILEPOST_LEASE": "2", "MILEPOST_SWEEP": "0.5",
    }  # fmt: skip

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", _PROGRAM]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)

    ledger.touch()
    jobs = Jobs(open_store(url, namespace="steps"))
    add_handlers(jobs)
    jobs.worker()
    position, started, lost = run_sync(jobs.store.feed(None)).position, set[str](), Counter[str]()
    workers, kill_at, until = [start() for _ in range(2)], 0.0, time.monotonic() + PATIENCE + 2 * kills
    ids: list[str] = []
    try:
        while True:
            is_over = lost.total() >= kills
            if not is_over and len(ids) - len(started) < WAITING:
                ids += jobs.submit_many("steps", [{"ledger": str(ledger)}] * WAITING)
            open_jobs = {status for _, status in run_sync(jobs.store.counts())} & {"pending", "running"}
            found = run_sync(jobs.store.feed(position, limit=1000, timeout=0.1))
            assert not found.lost
            position = found.position
            started.update(event.job_id for event in found.events if event.kind == "running")
            lost.update(event.job_id for event in found.events if event.kind in ("retrying", "failed"))
            for event in found.events:
                if event.kind == "failed":  # a crash loop, after three kills of one job; a retry continues it
                    jobs.retry_job(event.job_id)
            if is_over and not open_jobs and not found.events:
                return *wrong(jobs, ids, lost, ledger), len(ids)
            assert time.monotonic() < until, f"{lost.total()} of {kills} interruptions"
            if not is_over and time.monotonic() >= kill_at:
                worker = workers.pop(0)
                wait_until_ready(worker)
                time.sleep(random.uniform(0, KILL_SECONDS))
                end(worker)
                workers.append(start())
                kill_at = time.monotonic() + KILL_SECONDS
    finally:
        for worker in workers:
            end(worker)
        jobs.close()


def wrong(jobs: Jobs, ids: Sequence[str], lost: Counter[str], ledger: Path) -> tuple[list[str], int, int]:
    """Return what is wrong with the calls of these jobs, how many runs were interrupted, and the calls beyond one a step."""
    calls: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for line in ledger.read_text().splitlines():
        job_id, number, previous, value = line.split()
        calls[job_id].append((int(number), previous, value))
    problems, more = [], 0
    for job_id in ids:
        job, interrupted = jobs.get_job(job_id), lost[job_id]
        if job is None or job.status != "completed":
            problems.append(f"{job_id}: {job and job.error}")
            continue
        kept = ["-", *job.result]
        repeated = len(calls[job_id]) - STEPS
        more += repeated
        if repeated > interrupted:
            problems.append(f"{job_id}: {repeated} calls too many, {interrupted} interruptions")
        if {number for number, _, _ in calls[job_id]} != set(range(STEPS)):
            problems.append(f"{job_id}: a step was not called")
        if any(previous != kept[number] for number, previous, _ in calls[job_id]):
            problems.append(f"{job_id}: a step began with a value that was replaced")
        last = {number: value for number, _, value in calls[job_id]}
        if any(last[number] != kept[number + 1] for number in last):
            problems.append(f"{job_id}: a step was called although its value was kept")
    return problems, lost.total(), more


if __name__ == "__main__":
    work_until_killed(add_handlers, SLOTS)
