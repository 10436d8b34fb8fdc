"""milepost through its async API."""

from __future__ import annotations

import asyncio
import time

from benchmarks.environment import Environment


def lifecycle(environment: Environment) -> float:
    """13 awaited round trips."""
    return asyncio.run(_lifecycle(environment))


async def _lifecycle(environment: Environment) -> float:
    from milepost import AsyncJobManager, JobStatus

    manager = AsyncJobManager(environment.redis_url)
    begin = time.perf_counter()
    for _ in range(environment.size):
        job_id = (await manager.create_job(job_type="bench", metadata={"text": ""})).job_id
        await manager.update_job(job_id, status=JobStatus.RUNNING)
        for step in range(10):
            await manager.update_job(job_id, progress=step / 10, message=f"step {step} of 10")
        await manager.update_job(job_id, status=JobStatus.COMPLETED, result={"text": "done"})
    spent = time.perf_counter() - begin
    await manager.close()
    return environment.size / spent
