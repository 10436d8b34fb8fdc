"""milepost itself, through its public interface."""

from __future__ import annotations

import time

from benchmarks.environment import Environment
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


def w1(environment: Environment) -> float:
    """13 round trips, each atomic, each with its event."""
    return _lifecycle(environment)


def w1b(environment: Environment) -> float:
    """A tracked block: the pulse carries what the steps say."""
    from milepost import RedisJobManager

    manager = RedisJobManager(environment.redis_url)
    begin = time.perf_counter()
    for _ in range(environment.size):
        with manager.track("bench") as run:
            for step in range(10):
                run.progress(step / 10, f"step {step} of 10")
            run.result = {"text": "done"}
    return environment.size / (time.perf_counter() - begin)


def w4(environment: Environment) -> float:
    """`run.each` in a job whose progress is written to a store all the while."""
    from milepost import InMemoryJobManager

    with InMemoryJobManager().track("bench") as run:
        begin = time.perf_counter()
        for _ in run.each(range(environment.size)):
            pass
        return (time.perf_counter() - begin) / environment.size * 1e9


def w4b(environment: Environment) -> float:
    """`stage.advance()` for each step."""
    from milepost import InMemoryJobManager

    with InMemoryJobManager().track("bench") as run, run.stage("work", total=environment.size) as stage:
        advance = stage.advance
        begin = time.perf_counter()
        for _ in range(environment.size):
            advance()
        return (time.perf_counter() - begin) / environment.size * 1e9


def _filled(environment: Environment):  # type: ignore[no-untyped-def]
    """A store with ended jobs of ten types, one of twenty failed, each with an owner."""
    from milepost import RedisJobManager
    from milepost.core.lifecycle import plan_create, plan_update
    from milepost.manager.requests import job_fields
    from milepost.stores.driving import drive
    from milepost.stores.ids import new_job_id, new_op
    from milepost.stores.protocol import Write

    manager = RedisJobManager(environment.redis_url)
    for start in range(0, environment.size, 200):
        writes = []
        for n in range(start, min(start + 200, environment.size)):
            job_id = new_job_id()
            labels = {"owner": f"user{n // 10 % 7}"}
            fields = job_fields("caller", f"type{n % 10}", metadata={"text": "m" * 100}, labels=labels)
            writes.append(Write(job_id, plan_create(fields, new_op()), answer=False))
            status = "failed" if n // 10 % 2 == 0 and n % 10 == 0 else "completed"
            writes.append(
                Write(job_id, plan_update(new_op(), status, result='{"text":"%s"}' % ("r" * 100)), answer=False)
            )
        drive(manager.store.apply(writes))
    return manager


def _median(environment: Environment, **filters: object) -> float:
    manager = _filled(environment)
    spent = []
    for _ in range(200):
        begin = time.perf_counter()
        jobs = manager.list_jobs(limit=100, **filters)
        spent.append(time.perf_counter() - begin)
    assert len(jobs) == 100 or environment.size < 100_000, len(jobs)
    return sorted(spent)[100] * 1000


def w5(environment: Environment) -> float:
    """By type and status."""
    return _median(environment, job_type="type0", status="failed")


def w5all(environment: Environment) -> float:
    """Without a filter, over ten types and two statuses."""
    return _median(environment)


def w5label(environment: Environment) -> float:
    """By type, status and label."""
    return _median(environment, job_type="type0", status="failed", labels={"owner": "user2"})


def w6(environment: Environment) -> float:
    """Memory for a finished job with its indexes and its lifecycle events; the feed, which is bounded, left out."""
    before = used_memory(environment.port)
    _lifecycle(environment, "m" * 100, "r" * 100)
    import redis

    connection = redis.Redis.from_url(environment.redis_url)
    for key in connection.scan_iter("*:f"):
        connection.delete(key)
    return (used_memory(environment.port) - before) / environment.size
