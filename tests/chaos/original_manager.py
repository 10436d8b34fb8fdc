"""A transcript of the original `RedisJobManager` with simple workers, whose violations the checker must detect.

Every round trip to Redis is a step of its own (a `yield`), and a seed decides whose turn it is. Each write is recorded
as an event, since the original has no feed.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Generator
from typing import Any

import redis

from milepost.core.events import Event
from milepost.core.job import Job, JobStatus
from milepost.core.serialization import from_micros
from tests.chaos.history import History
from tests.chaos.ledger import Line, now

Steps = Generator[None, None, None]
TTL = 86_400 * 7
KINDS = {"pending": "created", "running": "running"}


class Original:
    """The original manager: read, change, write back, in two round trips that nothing holds together."""

    def __init__(self, client: redis.Redis) -> None:
        self.redis = client
        self.feed: list[Event] = []
        self.versions: dict[str, int] = {}
        self._statuses: dict[str, str] = {}

    def create(self, job_id: str) -> Steps:
        """Create a job as `create_job` of the original does."""
        yield
        self._write(
            {"job_id": job_id, "status": "pending", "progress": 0.0, "message": "Job created", "created": now()}
        )

    def read(self, job_id: str) -> dict[str, Any] | None:
        """Read a job as `get_job` of the original does."""
        data = self.redis.get(f"job:{job_id}")
        return json.loads(data) if data else None  # type: ignore[arg-type]

    def update(self, job_id: str, **changes: Any) -> Steps:
        """Update a job as `update_job` of the original does: read the record, and write it back a moment later."""
        job = self.read(job_id)
        if job is None:
            raise ValueError(f"Job {job_id} not found")
        yield
        job.update(changes)
        if changes.get("status") == "running" and not job.get("started"):
            job["started"] = now()
        if changes.get("status") in ("completed", "failed", "cancelled"):
            job["completed"] = now()
        self._write(job)

    def _write(self, job: dict[str, Any]) -> None:
        job_id, status = job["job_id"], job["status"]
        self.redis.set(f"job:{job_id}", json.dumps(job), ex=TTL)
        kind = KINDS.get(status, status) if self._statuses.get(job_id) != status else "progress"
        if job["message"].endswith("begins"):
            kind = "running"
        self._statuses[job_id] = status
        self.versions[job_id] = version = self.versions.get(job_id, 0) + 1
        self.feed.append(
            Event(job_id, version, kind, from_micros(now()), JobStatus(status), job["progress"], job["message"], {})
        )


def soak(client: redis.Redis, seed: int, jobs: int = 60, workers: int = 4) -> History:
    """Run workers that poll for pending jobs, clients that submit and cancel, and a worker that is killed at random."""
    rng = random.Random(seed)
    manager = Original(client)
    runs: list[Line] = []
    calls: list[Line] = []
    fences = iter(range(1, 1_000_000))
    known: list[str] = []

    def line(do: str, **what: Any) -> Line:
        time.sleep(0)
        return {"do": do, "at": now(), "pid": 1, **what}

    def clients() -> Steps:
        for number in range(jobs):
            job_id = f"job-{number}"
            calls.append(line("submit", job=job_id, phase="asked", type="t"))
            yield from manager.create(job_id)
            calls.append(line("submit", job=job_id, phase="done", type="t"))
            known.append(job_id)
            for _ in range(rng.randrange(12)):
                yield
            if rng.random() < 0.3:
                calls.append(line("cancel", job=job_id, phase="asked"))
                yield from manager.update(job_id, status="cancelled")
                calls.append(line("cancel", job=job_id, phase="done"))

    def worker() -> Steps:
        while True:
            yield
            for job_id in known:
                job = manager.read(job_id)
                if job is None or job["status"] != "pending":
                    continue
                fence = next(fences)
                yield from manager.update(job_id, status="running", message=f"{fence} begins")
                runs.append(line("start", job=job_id, fence=fence, given=None))
                for step in range(1, 4):
                    yield from manager.update(job_id, progress=step / 4, message=f"{fence} {step}")
                result = {"fence": fence}
                runs.append(line("end", job=job_id, fence=fence, result=result))
                yield from manager.update(
                    job_id, status="completed", progress=1.0, result=result, message=f"{fence} done"
                )

    actors: list[Steps] = [clients(), *(worker() for _ in range(workers))]
    for _ in range(jobs * 60):
        turn = rng.randrange(len(actors))
        if turn > 0 and rng.random() < 0.01:
            actors[turn] = worker()  # killed, and another one started
        if next(actors[turn], "over") == "over" and turn == 0:
            actors[0] = iter(lambda: None, 0)  # type: ignore[assignment]
    stored = {job_id: manager.read(job_id) for job_id in known}
    found = {job_id: _job(job_id, job, manager.versions[job_id]) for job_id, job in stored.items() if job is not None}
    events = {job_id: [event for event in manager.feed if event.job_id == job_id] for job_id in found}
    return History(runs, calls, manager.feed, found, events)


def _job(job_id: str, job: dict[str, Any], version: int) -> Job:
    record = {"type": "t", "status": job["status"], "progress": str(job["progress"]), "message": job["message"],
              "version": str(version), "driver": "worker"}  # fmt: skip
    record |= {name: str(job[name]) for name in ("created", "started", "completed") if job.get(name)}
    if "result" in job:
        record["result"] = json.dumps(job["result"])
    return Job.stored(job_id, record)
