"""Uploads that are counted in the background: FastAPI, jobs and uploads in one PostgreSQL, and a page in TypeScript.

`make fullstack` builds the page, starts a PostgreSQL for it, and serves http://127.0.0.1:8000.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import psycopg
from fastapi import Body, FastAPI
from fastapi.staticfiles import StaticFiles
from psycopg.rows import dict_row

from milepost import Jobs, Run
from milepost.web import attach, auth

URL = os.environ["MILEPOST_URL"]  # postgresql://..., for the jobs and for the table of the application
TABLE = """
CREATE TABLE IF NOT EXISTS uploads (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, text text NOT NULL, job_id text
)
"""

jobs = Jobs(URL)


@jobs.job(max_attempts=3)
def count_words(run: Run, upload: int) -> dict[str, int]:
    """Count the words of an upload."""
    with psycopg.connect(URL) as db:
        row = db.execute("SELECT text FROM uploads WHERE id = %s", [upload]).fetchone()
    words = 0
    for line in run.each(row[0].splitlines() if row is not None else [], unit="line"):
        words += len(line.split())
        time.sleep(0.02)  # stands for longer work
    return {"words": words}


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the table, and run a worker beside the service."""
    with psycopg.connect(URL) as db:
        db.execute(TABLE)
    with jobs.run_workers():
        yield


app = FastAPI(lifespan=lifespan)
attach(app, jobs, auth=auth.none())  # /api for the page, and the dashboard at /jobs


@app.put("/uploads/{name}", status_code=202)
def upload(name: str, body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> dict[str, Any]:
    """Store a text and submit its job in one transaction: there is never one without the other."""
    text = body.decode("utf-8", "replace").replace("\0", "")
    with psycopg.connect(URL, row_factory=dict_row) as db:
        row = db.execute("INSERT INTO uploads (name, text) VALUES (%s, %s) RETURNING id", [name, text]).fetchone()
        assert row is not None
        job = jobs.using(db).submit(count_words, upload=row["id"])
        db.execute("UPDATE uploads SET job_id = %s WHERE id = %s", [job.job_id, row["id"]])
    return {"id": row["id"], "name": name, "job_id": job.job_id}


@app.get("/uploads")
def uploads() -> list[dict[str, Any]]:
    """Return the uploads, newest first."""
    with psycopg.connect(URL, row_factory=dict_row) as db:
        return db.execute("SELECT id, name, job_id FROM uploads ORDER BY id DESC LIMIT 100").fetchall()


app.mount("/", StaticFiles(directory=Path(__file__).parent / "page/dist", html=True))
