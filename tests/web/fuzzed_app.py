"""The application for fuzzing: keys, a worker's job type, and a route through which tests create keys."""

from __future__ import annotations

import os
from typing import Any

from fastapi import Request

from milepost import AsyncJobs, Run
from milepost.web import auth, create_app
from milepost.web.security.api_keys import ApiKeyStore

jobs = AsyncJobs(os.environ["TEST_STORE"])
app = create_app(jobs, auth=auth.api_keys())


@jobs.job("ingestion")
async def ingestion(run: Run, path: str, pages: int = 1) -> dict[str, int]:
    """Read a document that does not exist."""
    return {"pages": pages}


@app.post("/key", include_in_schema=False)
async def key(request: Request) -> dict[str, Any]:
    """Create a key."""
    asked = await request.json()
    _, secret = await ApiKeyStore(jobs.store).create("test", asked["scopes"], labels=asked.get("labels"))
    return {"Authorization": f"Bearer {secret}"}
