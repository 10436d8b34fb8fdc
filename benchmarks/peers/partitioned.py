"""milepost with jobs in partitions: the worker of the survey `partition_claims` submits them itself, so that memory is measured like the others."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from benchmarks.peers.milepost import application

RUNNING, PER_PARTITION = 10, 2
SUBMITTERS = 8
"""Threads that submit to PostgreSQL, whose commits wait for the disk together."""


def work(url: str) -> None:
    """Submit BENCH_JOBS no-op jobs in BENCH_PARTITIONS partitions with limits, then run one at a time."""
    jobs, noop = application(url)
    worker = jobs.worker(concurrency=1)
    jobs.limit("noop", running=RUNNING, per_partition=PER_PARTITION)
    partitions = int(os.environ["BENCH_PARTITIONS"])

    def submit(number: int) -> None:
        jobs.submit(noop.options(partition=f"tenant-{number % partitions}"))

    with ThreadPoolExecutor(SUBMITTERS if url.startswith("postgresql") else 1) as submitters:
        for _ in submitters.map(submit, range(int(os.environ["BENCH_JOBS"]))):
            pass
    worker.run()
