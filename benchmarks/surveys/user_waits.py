"""Waits that users notice: for the start of a job beside a long backlog, until code hears a cancel, for a job with many children,
and for a run that resumes. The code runs in worker processes, which share a CPU with the caller.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks.environment import pin, private_store
from benchmarks.peers.user_waits import BEGINS, CHECK_SECONDS, CONTINUES, application
from benchmarks.sampler import PeerFailedError, Ticks, WorkerProcess, fifo, queue_command, worker_process
from benchmarks.surveys import Table, figure

PEER = "user_waits"
WORKERS = 10
PICKUPS, CANCELS, TIMES = 200, 100, 3
HEARTBEAT = 0.2
"""The pause before a cancel is at random up to this time: right after the last cancel was received, a heartbeat has just been sent."""
PART = 10_000
SECONDS = 300.0

Waits = Iterator[float]
"""Seconds of each wait."""


def survey(size: int, stores: Sequence[str]) -> Table:
    """Measure with `size` pending jobs, and a tenth as many children and items."""
    pin(1)
    is_full = size > 1000
    many = size // 10
    pickups, cancels, times = (PICKUPS, CANCELS, TIMES) if is_full else (5, 5, 1)
    workers = WORKERS if is_full else 2
    waits: dict[str, Callable[[str, Ticks], Waits]] = {
        f"job starts, {workers} workers, none pending": lambda url, ticks: _pickup(url, ticks, 0, workers, pickups),
        f"job starts, {workers} workers, {size:,} pending": lambda url, ticks: _pickup(
            url, ticks, size, workers, pickups
        ),
        "async code hears a cancel": lambda url, ticks: _cancel(url, ticks, "coroutine", cancels),
        "code in a thread hears a cancel": lambda url, ticks: _cancel(url, ticks, "thread", cancels),
        f"batch of {many:,} jobs, from submit to end": lambda url, ticks: _batch(url, ticks, many, times),
        f"parent of {many:,} children, from submit to end": lambda url, ticks: _parent(url, ticks, many, times),
        **{
            f"run with {many:,} items resumes, `{call}`": _resumption(how, many, times)
            for how, call in (("resume", "each(resume=True)"), ("state", "each(state=...)"), ("map", "map"))
        },
    }
    rows = []
    for store in stores:
        for title, wait in waits.items():
            print(f"  {store}: {title}", file=sys.stderr, flush=True)
            with private_store(store) as server, fifo() as ticks:
                found = sorted(wait(server.url, ticks))
            late = found[int(len(found) * 0.99)]
            rows.append([store, title, str(len(found)), figure(statistics.median(found) * 1e3), figure(late * 1e3)])
    notes = [
        f"The pending jobs wait behind a limit whose {workers} places are taken; the job that starts is of another type. Code in a thread "
        f"looks every {CHECK_SECONDS * 1e3:.0f} ms whether it is cancelled. {cancels} jobs run beside each other and are cancelled one by "
        "one. The children and the jobs of the batch do nothing, and one worker process runs them, 100 at a time. A resume is counted from "
        "the first line of the new attempt to the first new item, the last one. With fewer than 100 times, p99 is the longest.",
    ]
    return Table("user_waits", ["store", "wait", "times", "median ms", "p99 ms"], rows, notes)


def _pickup(url: str, ticks: Ticks, pending: int, workers: int, times: int) -> Waits:
    """From before the submit to the first line of the job."""
    with _working(url, ticks, 1, workers) as (jobs, _):
        if pending:
            jobs.limit("waiting", running=workers)
            for start in range(0, pending + workers, PART):
                jobs.submit_many("waiting", [{}] * min(PART, pending + workers - start))
            _until(lambda: jobs.count_jobs("waiting", "running") == workers)
        yield from queue_command(PEER, "pickup", url, times, ticks=ticks)["latencies"]


def _cancel(url: str, ticks: Ticks, job_type: str, times: int) -> Waits:
    """From before the cancel to the moment when the code hears it."""
    pause = random.Random(0)  # the same pauses in each run
    with _working(url, ticks, 1) as (jobs, worker):
        ids = jobs.submit_many(job_type, [{}] * times)
        for _ in ids:
            ticks.read(worker)
        for job_id in ids:
            time.sleep(pause.uniform(0, HEARTBEAT))
            begin = time.monotonic_ns()
            jobs.cancel_job(job_id)
            yield _seconds(begin, ticks.read(worker)[1])


def _batch(url: str, ticks: Ticks, many: int, times: int) -> Waits:
    """From before the batch is opened until `wait` has returned."""
    with _working(url, ticks, sys.maxsize) as (jobs, _):
        for number in range(times):
            begin = time.monotonic_ns()
            with jobs.batch(f"batch-{number}") as batch:
                batch.submit_many("noop", [{}] * many)
            _completed(batch.wait(SECONDS))
            yield _seconds(begin, time.monotonic_ns())


def _parent(url: str, ticks: Ticks, many: int, times: int) -> Waits:
    """From before the submit until `wait` has returned, for which `join` has returned and the parent has completed."""
    with _working(url, ticks, sys.maxsize) as (jobs, _):
        for _ in range(times):
            begin = time.monotonic_ns()
            _completed(jobs.wait(jobs.submit("parent", {"children": many}), SECONDS))
            yield _seconds(begin, time.monotonic_ns())


def _resumption(how: str, items: int, times: int) -> Callable[[str, Ticks], Waits]:
    """From the first line of an attempt to its first new item, which is the last one."""

    def measure(url: str, ticks: Ticks) -> Waits:
        with _working(url, ticks, 1) as (jobs, worker):
            for _ in range(times):
                job = jobs.submit("interrupted", {"items": items, "how": how})
                begin, end = _mark(ticks, worker, BEGINS), _mark(ticks, worker, CONTINUES)
                yield _seconds(begin, end)
                _completed(jobs.wait(job, SECONDS))

    return measure


@contextmanager
def _working(url: str, ticks: Ticks, every: int, workers: int = 1) -> Iterator[tuple[Any, WorkerProcess]]:
    """Yield the application and the last of its worker processes, when all have started."""
    jobs = application(url)
    with ExitStack() as stack:
        stack.callback(jobs.close)
        jobs.count_jobs()  # which makes the schema that PostgreSQL needs
        for _ in range(workers):
            worker = stack.enter_context(worker_process(PEER, url, ticks, every))
        _until(lambda: len(jobs.workers()) == workers)
        yield jobs, worker


def _mark(ticks: Ticks, worker: WorkerProcess, wanted: int) -> int:
    number, at = ticks.read(worker, SECONDS)
    if number != wanted:
        raise PeerFailedError(f"it reported {number} instead of {wanted}:\n{worker.output()}")
    return at


def _completed(job: Any) -> None:
    if job.status != "completed":
        raise PeerFailedError(f"{job.job_type} {job.status}: {job.error}")


def _until(holds: Callable[[], bool]) -> None:
    over = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > over:
            raise PeerFailedError("the workers did not start their jobs in time")
        time.sleep(0.05)


def _seconds(begin: int, end: int) -> float:
    return (end - begin) / 1e9
