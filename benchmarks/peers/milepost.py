"""milepost itself, through its public interface."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from benchmarks.environment import Environment
from benchmarks.job_ticks import tick
from benchmarks.peers.floor import used_memory


def _lifecycle(environment: Environment, metadata: str = "", result: str = "done") -> float:
    from milepost import JobStatus, RedisJobManager

    manager = RedisJobManager(environment.redis_url)
    begin = time.perf_counter()
    for _ in range(environment.size):
        job_id = manager.create_job(job_type="bench", metadata={"text": metadata}).job_id
        manager.update_job(job_id, status=JobStatus.RUNNING)
        for step in range(10):
            manager.update_job(job_id, progress=step / 10, message=f"step {step} of 10")
        manager.update_job(job_id, status=JobStatus.COMPLETED, result={"text": result})
    return environment.size / (time.perf_counter() - begin)


def lifecycle(environment: Environment) -> float:
    """13 round trips, each atomic, each with its event."""
    return _lifecycle(environment)


def lifecycle_coalesced(environment: Environment) -> float:
    """Run a tracked block, in which the heartbeat sends the reports of the steps."""
    from milepost import RedisJobManager

    manager = RedisJobManager(environment.redis_url)
    begin = time.perf_counter()
    for _ in range(environment.size):
        with manager.track("bench") as run:
            for step in range(10):
                run.progress(step / 10, f"step {step} of 10")
            run.result = {"text": "done"}
    return environment.size / (time.perf_counter() - begin)


def loop_step(environment: Environment) -> float:
    """Run `run.each` in a job with a heartbeat that writes its progress to a store."""
    from milepost import InMemoryJobManager

    with InMemoryJobManager().track("bench") as run:
        begin = time.perf_counter()
        for _ in run.each(range(environment.size)):
            pass
        return (time.perf_counter() - begin) / environment.size * 1e9


def stage_advance(environment: Environment) -> float:
    """Call `stage.advance()` for each step."""
    from milepost import InMemoryJobManager

    with InMemoryJobManager().track("bench") as run, run.stage("work", total=environment.size) as stage:
        advance = stage.advance
        begin = time.perf_counter()
        for _ in range(environment.size):
            advance()
        return (time.perf_counter() - begin) / environment.size * 1e9


def fill(store: Any, start: int, end: int) -> None:
    """Record ended jobs of ten types, one of twenty failed, each with an owner, by the bulk verb of a blocking store."""
    from milepost.core.transitions import plan_create, plan_update
    from milepost.manager.validation import job_fields
    from milepost.stores.ids import new_job_id, new_operation_id
    from milepost.stores.protocol import Write
    from milepost.stores.sync_bridge import run_sync

    for first in range(start, end, 200):
        writes = []
        for n in range(first, min(first + 200, end)):
            job_id = new_job_id()
            labels = {"owner": f"user{n // 10 % 7}"}
            fields = job_fields("manual", f"type{n % 10}", metadata={"text": "m" * 100}, labels=labels)
            writes.append(Write(job_id, plan_create(fields, new_operation_id()), answer=False))
            status = "failed" if n // 10 % 2 == 0 and n % 10 == 0 else "completed"
            end_it = plan_update(new_operation_id(), status, result='{"text":"%s"}' % ("r" * 100))
            writes.append(Write(job_id, end_it, answer=False))
        run_sync(store.apply(writes))


def _median(environment: Environment, **filters: Any) -> float:
    from milepost import RedisJobManager

    manager = RedisJobManager(environment.redis_url)
    fill(manager.store, 0, environment.size)
    spent = []
    for _ in range(200):
        begin = time.perf_counter()
        jobs = manager.list_jobs(limit=100, **filters)
        spent.append(time.perf_counter() - begin)
    assert len(jobs) == 100 or environment.size < 100_000, len(jobs)
    return sorted(spent)[100] * 1000


def list_failed(environment: Environment) -> float:
    """By type and status."""
    return _median(environment, job_type="type0", status="failed")


def list_newest(environment: Environment) -> float:
    """Without a filter, over ten types and two statuses."""
    return _median(environment)


def list_label(environment: Environment) -> float:
    """By type, status and label."""
    return _median(environment, job_type="type0", status="failed", labels={"owner": "user2"})


def record_memory(environment: Environment) -> float:
    """Memory for a finished job with its indexes and its lifecycle events; the feed, which is bounded, left out."""
    _lifecycle(replace(environment, size=1), "", "")  # what a server keeps once, its scripts, is no part of a record
    before = used_memory(environment.port)
    _lifecycle(environment, "m" * 100, "r" * 100)
    import redis

    connection = redis.Redis.from_url(environment.redis_url)
    for key in connection.scan_iter("*:f"):
        connection.delete(key)
    return (used_memory(environment.port) - before) / environment.size


def application(url: str, options: Any = None) -> Any:
    """Return the application and its job."""
    from milepost import Jobs, Run

    jobs = Jobs(url, options=options)

    @jobs.job("noop")
    async def noop(run: Run) -> int:
        return tick()

    return jobs, noop


class Connected:
    """Submits by `submit` and `submit_many`."""

    def __init__(self, url: str) -> None:
        self._jobs, self._job = application(url)
        self._jobs.count_jobs()  # connects, and creates the schema that PostgreSQL needs

    async def submit(self) -> None:
        """Submit one job."""
        self._jobs.submit(self._job)

    async def submit_many(self, count: int) -> None:
        """Submit the jobs in one round trip."""
        self._jobs.submit_many(self._job, [{}] * count)


connect = Connected


def work(url: str) -> None:
    """Run one worker, with 100 jobs at a time."""
    application(url)[0].worker(concurrency=100).run()
