"""A searchable library: uploaded documents are ingested by a worker in the same process.

uvicorn library_service:app --app-dir examples
curl -T paper.pdf http://127.0.0.1:8000/library/paper.pdf
curl 'http://127.0.0.1:8000/api/documents/search?q=what+it+says'
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request

from milepost import Jobs, Run
from milepost.documents.jobs import document_jobs
from milepost.documents.routes import create_documents_router
from milepost.web import attach, auth

library = Path(os.environ.get("LIBRARY", "library")).absolute()
papers = library / "papers"
papers.mkdir(parents=True, exist_ok=True)
database = library / "documents.db"
jobs = Jobs(os.environ.get("MILEPOST_URL", f"sqlite:///{library / 'jobs.db'}"))
documents = document_jobs(root=papers, database=database)  # whatever name is posted to /api/jobs, only papers are read


@jobs.job("ingestion", max_attempts=3, timeout="1h")
def ingest(run: Run, name: str) -> dict[str, Any]:
    """Ingest a document of the library."""
    return documents["ingestion"](run, [str(papers / name)], key=name)


app = FastAPI(lifespan=jobs.lifespan(workers=1))
context = attach(app, jobs, auth=auth.none())  # the dashboard is at /jobs/
app.include_router(create_documents_router(context, database=database))


@app.put("/library/{name}", status_code=202)
async def add(name: str, request: Request) -> dict[str, str]:
    """Store a document and submit its ingestion; a repeated name replaces the document."""
    path = papers / Path(name).name
    path.write_bytes(await request.body())
    job = jobs.submit(ingest, name=path.name)
    return {"job_id": job.job_id, "progress": f"/api/jobs/{job.job_id}/events"}
