"""The original design, transcribed for measuring alone: JSON by SETEX, read, changed and written back."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from benchmarks.environment import Environment
from benchmarks.peers.floor import used_memory


class Manager:
    """`RedisJobManager` of the original, without its dataclass."""

    def __init__(self, url: str) -> None:
        import redis

        self.redis: Any = redis.from_url(url, decode_responses=True)
        self.ttl = 86400 * 7

    def create_job(self, job_type: str, metadata: dict[str, Any] | None = None) -> str:
        job_id = str(uuid.uuid4())
        now = datetime.now(UTC)
        job = {
            "job_id": job_id,
            "job_type": job_type,
            "status": "pending",
            "progress": 0.0,
            "message": "Job created",
            "created_at": now.isoformat(),
            "started_at": None,
            "completed_at": None,
            "error": None,
            "result": None,
            "metadata": metadata or {},
        }
        self.redis.setex(f"job:{job_id}", self.ttl, json.dumps(job))
        self.redis.zadd("jobs:index", {job_id: now.timestamp()})
        return job_id

    def get_job(self, job_id: str) -> dict[str, Any] | None:
        data = self.redis.get(f"job:{job_id}")
        if not data:
            return None
        job: dict[str, Any] = json.loads(data)
        for field in ("created_at", "started_at", "completed_at"):
            if job[field]:
                job[field] = datetime.fromisoformat(job[field])
        return job

    def update_job(self, job_id: str, **changes: Any) -> None:
        job = self.get_job(job_id)
        if not job:
            raise ValueError(f"Job {job_id} not found")
        job.update(changes)
        if changes.get("status") == "running" and not job["started_at"]:
            job["started_at"] = datetime.now(UTC)
        if changes.get("status") in ("completed", "failed", "cancelled"):
            job["completed_at"] = datetime.now(UTC)
        for field in ("created_at", "started_at", "completed_at"):
            if job[field]:
                job[field] = job[field].isoformat()
        self.redis.setex(f"job:{job_id}", self.ttl, json.dumps(job))

    def list_jobs(self, job_type: str, status: str, limit: int) -> list[dict[str, Any]]:
        jobs = []
        for job_id in self.redis.zrevrange("jobs:index", 0, limit - 1):
            job = self.get_job(job_id)
            if job and job["job_type"] == job_type and job["status"] == status:
                jobs.append(job)
        return jobs


def _lifecycle(environment: Environment, metadata: str = "", result: str = "done") -> float:
    manager = Manager(environment.redis_url)
    begin = time.perf_counter()
    for _ in range(environment.size):
        job_id = manager.create_job("bench", {"text": metadata})
        manager.update_job(job_id, status="running")
        for step in range(10):
            manager.update_job(job_id, progress=step / 10, message=f"step {step} of 10")
        manager.update_job(job_id, status="completed", progress=1.0, result={"text": result})
    return environment.size / (time.perf_counter() - begin)


def lifecycle(environment: Environment) -> float:
    """26 round trips, not atomic."""
    return _lifecycle(environment)


def list_failed(environment: Environment) -> float:
    """List failed jobs as the original does: it filters after the limit, and finds those among the newest 100."""
    manager = Manager(environment.redis_url)
    pipe = manager.redis.pipeline(transaction=False)
    for n in range(environment.size):
        job_id = str(uuid.uuid4())
        job = {
            "job_id": job_id, "job_type": f"type{n % 10}", "status": "failed" if n % 20 == 0 else "completed",
            "progress": 1.0, "message": "done", "created_at": "2026-11-25T01:00:00+00:00",
            "started_at": "2026-11-25T01:00:00+00:00", "completed_at": "2026-11-25T01:00:00+00:00",
            "error": None, "result": {"text": "r" * 100}, "metadata": {"text": "m" * 100},
        }  # fmt: skip
        pipe.setex(f"job:{job_id}", manager.ttl, json.dumps(job))
        pipe.zadd("jobs:index", {job_id: n})
        if n % 1000 == 999:
            pipe.execute()
    pipe.execute()
    spent = []
    for _ in range(20):
        begin = time.perf_counter()
        manager.list_jobs("type0", "failed", 100)
        spent.append(time.perf_counter() - begin)
    return sorted(spent)[10] * 1000


def record_memory(environment: Environment) -> float:
    """Memory for a finished job, with its index entry and its expiry."""
    manager = Manager(environment.redis_url)
    before = used_memory(environment.port)
    for _ in range(environment.size):
        job_id = manager.create_job("bench", {"text": "m" * 100})
        manager.update_job(job_id, status="running")
        manager.update_job(job_id, status="completed", progress=1.0, message="step 9 of 10", result={"text": "r" * 100})
    return (used_memory(environment.port) - before) / environment.size
