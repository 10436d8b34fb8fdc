"""A service that processes uploaded documents; each upload returns a link to a live page of its job.

uvicorn upload_service:app --app-dir examples
curl -T report.txt http://127.0.0.1:8000/documents/report.txt
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from milepost import AsyncJobs, Run
from milepost.web import attach, auth

jobs = AsyncJobs()  # MILEPOST_URL, else REDIS_URL, else in memory
folder = Path(tempfile.mkdtemp(prefix="uploads-"))


@jobs.job("counting")
def count_words(run: Run, path: str) -> dict[str, Any]:
    """Count the words of a document. The count is a local variable, so each attempt starts at the first line."""
    lines = Path(path).read_text("utf-8", "replace").splitlines()
    words = 0
    for line in run.each(lines):
        words += len(line.split())
    return {"words": words, "lines": len(lines)}


app = FastAPI(lifespan=jobs.lifespan(workers=1))
attach(app, jobs, auth=auth.none())


@app.put("/documents/{name}", status_code=202)
async def upload(name: str, request: Request) -> dict[str, str]:
    """Store a document and submit its processing."""
    path = folder / Path(name).name
    await asyncio.to_thread(path.write_bytes, await request.body())
    job = await jobs.submit("counting", {"path": str(path)}, metadata={"filename": path.name})
    return {"job_id": job.job_id, "watch": f"/watch/{job.job_id}"}


@app.get("/watch/{job_id}")
async def watch(job_id: str) -> HTMLResponse:
    """Return a page that shows one job live."""
    return HTMLResponse(PAGE)


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Your document</title>
<h1 id="status">...</h1><progress id="bar" max="1"></progress><p id="message"></p>
<script type="module">
  import { watchJob } from "/api/milepost-watch.js";
  const show = (job) => {
    document.getElementById("status").textContent = job.status ?? "";
    document.getElementById("bar").value = job.progress ?? 0;
    document.getElementById("message").textContent = job.error ?? job.message ?? "";
  };
  watchJob("/api", location.pathname.split("/").pop(), { onChange: show, onEnd: show });
</script>
</html>"""
