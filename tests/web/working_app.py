"""An application with a worker in it, for tests of what a signal does: jobs that wait, jobs that do not listen, a slow call."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request

from milepost import AsyncJobs, Run
from milepost.web import attach, auth

jobs = AsyncJobs(os.environ["TEST_STORE"])


@jobs.job("patient", max_attempts=5)
async def patient(run: Run) -> None:
    """Wait for ever, and stop when told."""
    run.progress(0.5, "waiting")
    await asyncio.sleep(3600)


@jobs.job("deaf", max_attempts=5)
def deaf(run: Run) -> None:
    """Wait for ever in a thread, and hear nothing."""
    run.progress(0.5, "waiting")
    time.sleep(3600)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """A worker beside the server, as `jobs.lifespan()` has it."""
    async with jobs.lifespan(workers=1)(app):
        yield
    print("the lifespan has ended", flush=True)


app = FastAPI(lifespan=lifespan)
attach(app, jobs, auth=auth.none())


@app.get("/hold")
async def hold(request: Request) -> dict[str, Any]:
    """A call that lasts until its client leaves: while it is open, uvicorn does not come to the lifespan's end."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.05)
    return {}
