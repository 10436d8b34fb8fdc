"""FastAPI's own BackgroundTasks, tracked: the work stays where it is, and can be watched and cancelled.

uvicorn background_tasks:app --app-dir examples
"""

from __future__ import annotations

import asyncio

from fastapi import BackgroundTasks, FastAPI

from milepost import AsyncJobManager
from milepost.web import attach, auth

manager = AsyncJobManager()
app = FastAPI()
attach(app, manager, auth=auth.none())


async def send_letters(job_id: str, count: int) -> None:
    """Send letters; the block adopts the pending job."""
    async with manager.track(job_id=job_id) as run:
        async for number in run.each(range(count)):
            await asyncio.sleep(0.01)
            run.progress(message=f"Letter {number + 1}")


@app.post("/letters", status_code=202)
async def letters(count: int, tasks: BackgroundTasks) -> dict[str, str]:
    """Start sending letters, and return the URL of the job."""
    job = await manager.create_job(job_type="letters", metadata={"count": count})
    tasks.add_task(send_letters, job.job_id, count)
    return {"job_id": job.job_id, "events": f"/api/jobs/{job.job_id}/events"}
