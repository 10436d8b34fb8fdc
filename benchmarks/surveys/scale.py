"""The cost of each operation at 1 %, 10 % and 100 % of the size, in Redis and in SQLite, and its growth.

Growth is the exponent of a least-squares fit of cost = c * jobs ^ exponent over the three sizes: what grows like log n
over this range has about 0.1, what grows with n has 1. A verb whose exponent is above LIMIT is named beneath the table.
"""

from __future__ import annotations

import http.client
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.environment import pin, private_store
from benchmarks.http_load import server
from benchmarks.peers.milepost import fill
from benchmarks.surveys import Table, figure

LIMIT = 0.2
"""Maximum growth exponent: log n has 0.09 from 10,000 to 1,000,000; the rest allows for noise."""


def survey(size: int) -> Table:
    """Measure both stores at three sizes each."""
    pin(1)
    sizes = [max(size // 100, 10), max(size // 10, 20), size]
    rows, fast = [], []
    for name in ("Redis", "SQLite"):
        with private_store(name) as server:
            costs = _costs(server.url, sizes)
        for (verb, unit), found in costs.items():
            exponent = _exponent(sizes, found)
            rows.append([name, verb, unit, *(figure(cost) for cost in found), f"{exponent:+.2f}"])
            if exponent > LIMIT:
                fast.append(f"{verb} ({name})")
    notes = ["Grows faster than log n: " + ", ".join(fast) + "." if fast else "No operation grows faster than log n."]
    return Table("scale", ["store", "verb", "unit", *(f"{n:,} jobs" for n in sizes), "exponent"], rows, notes)


def _costs(url: str, sizes: list[int]) -> dict[tuple[str, str], list[float]]:
    from milepost import Jobs, Run

    jobs = Jobs(url)

    @jobs.job("noop")
    def noop(run: Run) -> None:
        """Never run."""

    costs: dict[tuple[str, str], list[float]] = {}
    there = 0
    for size in sizes:
        fill(jobs.store, there, size)
        there = size
        print(f"  {jobs.store.url.partition(':')[0]}: {size:,} jobs", file=sys.stderr, flush=True)
        for verb, cost in _verbs(jobs, noop, size).items():
            costs.setdefault(verb, []).append(cost)
    jobs.close()
    return costs


def _verbs(jobs: Any, noop: Any, size: int) -> dict[tuple[str, str], float]:
    """Return the cost of each operation in a store with that many jobs."""
    from milepost.core.transitions import plan_start
    from milepost.stores.ids import new_nonce, new_operation_id
    from milepost.stores.protocol import Claim
    from milepost.stores.sync_bridge import run_sync

    store = jobs.store
    lease = 60_000_000
    found: dict[tuple[str, str], float] = {}
    bulk = 500

    begin = time.perf_counter()
    ids = jobs.submit_many(noop, [{}] * 2 * bulk)
    found["submit in bulk", "us/job"] = (time.perf_counter() - begin) / len(ids) * 1e6
    found["submit", "us"] = _median(200, lambda: jobs.submit(noop)) * 1e6

    def claim() -> None:
        starts = tuple(plan_start(new_operation_id(), nonce=new_nonce(), lease=lease, worker="w") for _ in range(32))
        claimed = run_sync(store.apply([], Claim("w", {"noop": None}, starts, new_operation_id()))).claimed
        assert len(claimed) == 32, len(claimed)

    found["claim 32", "us/job"] = _median(20, claim) / 32 * 1e6
    newest = jobs.list_jobs(limit=100)
    found["get", "us"] = _median(200, lambda: jobs.get_job(newest[50].job_id)) * 1e6
    found["newest 100", "ms"] = _median(50, lambda: jobs.list_jobs(limit=100)) * 1e3
    found["newest 100, type and status", "ms"] = (
        _median(50, lambda: jobs.list_jobs(limit=100, job_type="type0", status="failed")) * 1e3
    )
    labels = {"owner": "user2"}
    found["newest 100, label", "ms"] = _median(50, lambda: jobs.list_jobs(limit=100, labels=labels)) * 1e3
    found["newest 100, type, status and label", "ms"] = (
        _median(50, lambda: jobs.list_jobs(limit=100, job_type="type0", status="failed", labels=labels)) * 1e3
    )
    with _served(jobs.store.url) as get:
        found["newest 100, over HTTP", "ms"] = _median(50, lambda: get("limit=100")) * 1e3
        found["newest 100, type and status, over HTTP", "ms"] = (
            _median(50, lambda: get("job_type=type0&status=failed&limit=100")) * 1e3
        )
    found["page to the end, by 1,000", "us/job"] = _page_through(jobs) * 1e6
    found["count, type and status", "us"] = _median(100, lambda: jobs.count_jobs("type0", "failed")) * 1e6
    found["count, label", "us"] = _median(100, lambda: jobs.count_jobs(labels=labels)) * 1e6
    found["counts of all", "us"] = _median(100, lambda: run_sync(store.counts())) * 1e6
    found["sweep, nothing due", "us"] = _median(50, lambda: run_sync(store.sweep(lease=60.0, interval=0.0))) * 1e6
    before = run_sync(store.now())
    found["purge 100", "us/job"] = _median(5, lambda: run_sync(store.purge(before=before, limit=100))) / 100 * 1e6
    found["update seen by a reader of the feed", "us"] = _median(100, _streamed(jobs)) * 1e6
    return found


@contextmanager
def _served(url: str) -> Iterator[Callable[[str], None]]:
    """Run a server process of the store, and yield a call that reads a list from it."""
    with server([sys.executable], f"{__name__}:application", os.environ | {"BENCH_URL": url}) as (port, _):
        client = http.client.HTTPConnection("127.0.0.1", port)

        def get(query: str) -> None:
            client.request("GET", f"/api/jobs?{query}")
            answer = client.getresponse()
            body = answer.read()
            assert answer.status == 200, body

        yield get
        client.close()


def application() -> Any:
    """Return the API over the store in BENCH_URL."""
    from milepost.web import auth, create_app

    return create_app(os.environ["BENCH_URL"], auth=auth.none())


def _page_through(jobs: Any) -> float:
    """Return the seconds per job of a list read to its end."""
    begin, seen, cursor = time.perf_counter(), 0, None
    while True:
        page = jobs.find(limit=1000, cursor=cursor)
        seen += len(page.jobs)
        cursor = page.next_cursor
        if cursor is None:
            return (time.perf_counter() - begin) / seen


def _streamed(jobs: Any) -> Callable[[], None]:
    """Update a job, and read its event from the feed."""
    from milepost.stores.sync_bridge import run_sync

    job = jobs.create_job(job_type="streamed")
    position = run_sync(jobs.store.feed(None)).position

    def update_and_read() -> None:
        nonlocal position
        jobs.update_job(job.job_id, message=f"at {position}")
        read = run_sync(jobs.store.feed(position, timeout=5.0))
        assert read.events
        position = read.position

    return update_and_read


def _median(times: int, call: Callable[[], object]) -> float:
    """Return the seconds of the median call."""
    spent = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def _exponent(sizes: list[int], costs: list[float]) -> float:
    logs = [math.log(size) for size in sizes]
    return statistics.linear_regression(logs, [math.log(cost) for cost in costs]).slope
