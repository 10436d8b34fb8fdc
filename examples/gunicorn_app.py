"""Several server processes: gunicorn imports the application once, then forks.

MILEPOST_URL=sqlite:///jobs.db gunicorn gunicorn_app:app --chdir examples --preload -w 3 -k uvicorn_worker.UvicornWorker

The parent keeps the connections that it opened before the fork. Each process has its own worker, connections, streams and
sweeper. A store in memory is refused, because each process would have other jobs.
"""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI

from milepost import Jobs, Run
from milepost.web import attach, auth

jobs = Jobs()
jobs.count_jobs()  # the store is in use before the fork, as in an application that reads something at its start


@jobs.job("where")
def where(run: Run) -> dict[str, Any]:
    """Return the id of the process that ran it."""
    return {"pid": os.getpid()}


app = FastAPI(lifespan=jobs.lifespan(workers=1))
attach(app, jobs, auth=auth.none())


@app.post("/where", status_code=202)
def begin() -> dict[str, Any]:
    """Submit a job from the process that handles the request."""
    return {"job_id": jobs.submit(where).job_id, "pid": os.getpid()}
