"""The interface as a fuzzer meets it: keys, a type of job that workers run, and a door through which a test makes keys."""

from __future__ import annotations

import os
from typing import Any

from fastapi import Request

from milepost import AsyncJobs, Run
from milepost.web import auth, create_app
from milepost.web.keys import Keys

jobs = AsyncJobs(os.environ["TEST_STORE"])
app = create_app(jobs, auth=auth.api_keys())


@jobs.job("ingestion")
async def ingestion(run: Run, path: str, pages: int = 1) -> dict[str, int]:
    """Read a document that is not there."""
    return {"pages": pages}


@app.post("/key", include_in_schema=False)
async def key(request: Request) -> dict[str, Any]:
    """A new key."""
    asked = await request.json()
    _, secret = await Keys(jobs.store).create("test", asked["scopes"], labels=asked.get("labels"))
    return {"Authorization": f"Bearer {secret}"}
