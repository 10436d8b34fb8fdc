"""An application with a worker, for signal tests: patient jobs, unresponsive jobs, and a slow request."""

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
    """Wait for ever, and stop when cancelled."""
    run.progress(0.5, "waiting")
    await asyncio.sleep(3600)


@jobs.job("deaf", max_attempts=5)
def deaf(run: Run) -> None:
    """Wait for ever in a thread, ignoring cancellation."""
    run.progress(0.5, "waiting")
    time.sleep(3600)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run a worker beside the server, as `jobs.lifespan()` does."""
    async with jobs.lifespan(workers=1)(app):
        yield
    print("the lifespan has ended", flush=True)


app = FastAPI(lifespan=lifespan)
attach(app, jobs, auth=auth.none())


@app.get("/hold")
async def hold(request: Request) -> dict[str, Any]:
    """Wait until the client disconnects. While the request is open, uvicorn does not end the lifespan."""
    while not await request.is_disconnected():
        await asyncio.sleep(0.05)
    return {}
