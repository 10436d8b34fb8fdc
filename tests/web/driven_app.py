"""The application of `tests.web.server`, with a route through which tests call the manager."""

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
    """Call a method of the manager. A Job is returned as its dict."""
    asked = await request.json()
    answer = await getattr(manager, asked["method"])(*asked["args"], **asked["kwargs"])
    return answer.to_dict() if hasattr(answer, "to_dict") else answer


attach(app, manager, auth=site_auth)
