"""The cost of a claim beside many partitions, each with a limit: a worker process runs no-op jobs one at a time, so each job is one
claim and one completion in one request.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from itertools import pairwise

from benchmarks.environment import Server, pin, private_store
from benchmarks.peers.partitioned import PER_PARTITION, RUNNING
from benchmarks.sampler import cpu_seconds, fifo, worker_process
from benchmarks.surveys import Table, figure

PEER = "partitioned"
EVERY = 10
"""Starts per report, so that the reader takes little of the worker's CPU."""
SECONDS = 10.0
START_SECONDS = 300.0


def survey(size: int, stores: Sequence[str]) -> Table:
    """Measure `size` partitions, a tenth as many, and ten."""
    pin(1)
    partitions = sorted({EVERY, size // 10, size})
    claims = max(size // 10 // EVERY, 2) * EVERY
    rows = []
    for store in stores:
        took, spent = [], []
        for many in partitions:
            print(f"  {store}: {many:,} partitions", file=sys.stderr, flush=True)
            with private_store(store) as server:
                wall, cpu = _measure(server, many, claims)
            took.append(figure(wall * 1e3))
            spent.append(figure(cpu * 1e3))
        rows += [[store, "from a start to the next, ms", *took], [store, "processor time, ms", *spent]]
    notes = [
        f"A worker runs no-op jobs one at a time, {claims:,} or as many as {SECONDS:.0f} s allow, while all partitions wait: each start is "
        f"one request that completes the last job and claims one. The limits are {RUNNING} in all and {PER_PARTITION} for each partition. "
        f"The median of the means of {EVERY}. Processor time is that of the worker and the server.",
    ]
    return Table("partition_claims", ["store", "what", *(f"{many:,} partitions" for many in partitions)], rows, notes)


def _measure(server: Server, partitions: int, claims: int) -> tuple[float, float]:
    """Return the seconds from a start to the next, and the processor time of a job."""
    size = {"BENCH_PARTITIONS": str(partitions), "BENCH_JOBS": str(partitions + claims)}
    with fifo() as ticks, worker_process(PEER, server.url, ticks, EVERY, **size) as worker:
        ticks.read(worker, START_SECONDS)  # the first start
        seen = [ticks.read(worker)]
        before = worker.cpu() + cpu_seconds(server.pid)
        while seen[-1][0] < claims and seen[-1][1] - seen[0][1] < SECONDS * 1e9:
            seen.append(ticks.read(worker))
        spent = worker.cpu() + cpu_seconds(server.pid) - before
    steps = [(later - earlier) / EVERY / 1e9 for (_, earlier), (_, later) in pairwise(seen)]
    return statistics.median(steps), spent / (seen[-1][0] - seen[0][0])
