"""Flask submits jobs, a worker runs them, `milepost serve` shows them: three processes on one store.

cd examples
export MILEPOST_URL=sqlite:///jobs.db
milepost serve &
milepost worker flask_app:jobs &
flask --app flask_app run
curl -X POST http://127.0.0.1:5000/words -d 'one two three'
"""

from __future__ import annotations

from typing import Any

from flask import Flask, abort, request

from milepost import Jobs, Run

jobs = Jobs()
app = Flask(__name__)


@jobs.job("words")
def count(run: Run, text: str) -> dict[str, int]:
    """Count the words of a text."""
    return {"words": sum(1 for _ in run.each(text.split()))}


@app.post("/words")
def begin() -> tuple[dict[str, str], int]:
    """Submit a job, and return its URL on the milepost server."""
    job = jobs.submit(count, text=request.get_data(as_text=True))
    return {"job_id": job.job_id, "dashboard": f"http://127.0.0.1:8321/jobs/?job={job.job_id}"}, 202


@app.get("/words/<job_id>")
def look(job_id: str) -> dict[str, Any]:
    """Return the current state of a job."""
    job = jobs.get_job(job_id)
    return abort(404) if job is None else job.to_dict()
