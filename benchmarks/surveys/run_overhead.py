"""Many running jobs in one process that report as fast as possible: cost of the heartbeat, reports that reach the store, and
the time from a cancel on another connection until the code stops."""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from typing import Any

import psutil

from benchmarks.environment import pin, private_store
from benchmarks.surveys import Table, figure

SECONDS = 10.0
CANCELS = 50


def survey(size: int) -> Table:
    """Measure one, a tenth and all of the jobs on Redis, and all on SQLite and in memory."""
    pin(1)
    rows = []
    for name, running in (("Redis", 1), ("Redis", size // 10), ("Redis", size), ("SQLite", size), ("memory", size)):
        with private_store(name) as server:
            seconds = SECONDS if size > 100 else 1.0
            rows.append([name, f"{running:,}", *asyncio.run(_measure(server.url, running, server.pid, seconds))])
    columns = ["store", "running", "steps/s", "heartbeat CPU", "writes/s", "Redis CPU", "cancel p50 ms", "p99 ms"]
    notes = [
        "Writes are accepted changes of records. The heartbeat is every 0.2 s unless MILEPOST_HEARTBEAT says otherwise."
    ]
    return Table("run_overhead", columns, rows, notes)


async def _measure(url: str, running: int, pid: int, seconds: float) -> list[str]:
    from milepost import AsyncJobManager

    manager = AsyncJobManager(url)
    steps = 0
    begun, over = asyncio.Event(), asyncio.Event()
    ids: list[str] = []
    stopped: dict[str, float] = {}

    async def work() -> None:
        nonlocal steps
        async with manager.track("busy") as run:
            ids.append(run.job_id)
            if len(ids) == running:
                begun.set()
            try:
                with run.stage("working", total=10**9) as stage:
                    while not over.is_set():
                        stage.advance()
                        steps += 1
                        await asyncio.sleep(0)
            finally:
                stopped[run.job_id] = time.perf_counter()

    tasks = [asyncio.create_task(work()) for _ in range(running)]
    await begun.wait()
    await asyncio.sleep(min(1.0, seconds))
    heartbeat, redis = _thread_cpu(), _cpu(pid)
    versions, steps_before, begin = await _versions(manager, ids), steps, time.perf_counter()
    await asyncio.sleep(seconds)
    spent = time.perf_counter() - begin
    rate, heartbeat, redis = (
        (steps - steps_before) / spent,
        (_thread_cpu() - heartbeat) / spent,
        (_cpu(pid) - redis) / spent,
    )
    writes = (await _versions(manager, ids) - versions) / spent
    latencies = await asyncio.to_thread(_cancel, manager, ids[: min(CANCELS, max(running // 2, 1))], stopped)
    over.set()
    await asyncio.gather(*tasks, return_exceptions=True)  # those that were cancelled say so
    await manager.close()
    return [
        figure(rate),
        f"{heartbeat:.1%}",
        figure(writes),
        f"{redis:.1%}" if pid else "",
        figure(statistics.median(latencies) * 1e3),
        figure(latencies[int(len(latencies) * 0.99)] * 1e3),
    ]


async def _versions(manager: Any, ids: list[str]) -> int:
    return sum([(await manager.get_job(job_id)).version for job_id in ids])


def _cancel(manager: Any, ids: list[str], stopped: dict[str, float]) -> list[float]:
    """Cancel jobs one by one from a thread with its own connection. Return the seconds until each has stopped."""
    from milepost.manager.sync import JobManager

    other = JobManager(manager.store.with_blocking(blocking=True))
    latencies = []
    for job_id in ids:
        begin = time.perf_counter()
        other.cancel_job(job_id)
        while job_id not in stopped:
            time.sleep(0.001)
        latencies.append(stopped[job_id] - begin)
    return sorted(latencies)


def _thread_cpu() -> float:
    """Return the CPU seconds of the heartbeat threads."""
    ours = {thread.native_id for thread in threading.enumerate() if "heartbeat" in thread.name}
    return float(sum(one.user_time + one.system_time for one in psutil.Process().threads() if one.id in ours))


def _cpu(pid: int) -> float:
    return float(sum(psutil.Process(pid).cpu_times()[:2])) if pid else 0.0
