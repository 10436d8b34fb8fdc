"""RQ: a job with its meta saved at each step, as its documentation shows progress."""

from __future__ import annotations

import time
from dataclasses import replace

from benchmarks.environment import Environment
from benchmarks.job_ticks import tick
from benchmarks.peers.floor import used_memory


def _lifecycle(environment: Environment, metadata: str = "", result: str = "done") -> float:
    import redis
    from rq.job import Job, JobStatus

    connection = redis.Redis.from_url(environment.redis_url)
    begin = time.perf_counter()
    for _ in range(environment.size):
        job = Job.create("math.sqrt", args=(4,), connection=connection, meta={"metadata": metadata}, result_ttl=604800)
        job.save()
        job.set_status(JobStatus.STARTED)
        for step in range(10):
            job.meta["progress"] = step / 10
            job.meta["message"] = f"step {step} of 10"
            job.save_meta()
        job.meta["result"] = result
        job.save_meta()
        job.set_status(JobStatus.FINISHED)
    return environment.size / (time.perf_counter() - begin)


def lifecycle(environment: Environment) -> float:
    """create, started, 10 x save_meta, finished: 13 or 14 round trips."""
    return _lifecycle(environment)


lifecycle_coalesced = lifecycle


def record_memory(environment: Environment) -> float:
    """Memory for a finished job."""
    _lifecycle(replace(environment, size=1), "", "")
    before = used_memory(environment.port)
    _lifecycle(environment, "m" * 100, "r" * 100)
    return (used_memory(environment.port) - before) / environment.size


class Connected:
    """Submits by `enqueue` and `enqueue_many`."""

    def __init__(self, url: str) -> None:
        import redis
        from rq import Queue

        self._queue = Queue("bench", connection=redis.Redis.from_url(url))

    async def submit(self) -> None:
        """Submit one job."""
        self._queue.enqueue(tick)

    async def submit_many(self, count: int) -> None:
        """Submit the jobs in one pipeline."""
        self._queue.enqueue_many([self._queue.prepare_data(tick) for _ in range(count)])


connect = Connected


def work(url: str) -> None:
    """Run its worker without a fork per job, which is its fastest."""
    import redis
    from rq import Queue, SimpleWorker

    connection = redis.Redis.from_url(url)
    SimpleWorker([Queue("bench", connection=connection)], connection=connection).work(logging_level="ERROR")
