"""The application that `tests.web.server` runs: the interface, and a door through which a test drives the jobs."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI, Request

from milepost import AsyncJobManager
from milepost.web import attach, auth

manager = AsyncJobManager(os.environ.get("TEST_STORE", "memory://"))
app = FastAPI()
site_auth = auth.api_keys() if os.environ.get("TEST_AUTH") == "keys" else auth.none()


@app.post("/drive")
async def drive(request: Request) -> Any:
    """Call a method of the manager; a Job comes back as its dict."""
    asked = await request.json()
    answer = await getattr(manager, asked["method"])(*asked["args"], **asked["kwargs"])
    return answer.to_dict() if hasattr(answer, "to_dict") else answer


attach(app, manager, auth=site_auth)
