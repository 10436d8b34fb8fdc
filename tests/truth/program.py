"""Runs a published program in this process on a store in its folder, and tells how its jobs have ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import milepost
from milepost import Job, SQLiteJobManager
from milepost.settings import settings
from tests.truth.published import ARGUMENTS, Published

STORE = "jobs.db"
"""The store that the programs name; a program that names none, or memory, has it too, since memory ends with a process."""


def run(program: Published, folder: Path, namespace: str, times: dict[str, float]) -> dict[str, Any]:
    """Run a program to its end; raises what it raises. Return the newest job of each of its types."""
    os.chdir(folder)
    os.environ["MILEPOST_URL"] = f"sqlite:///{STORE}"
    os.environ["MILEPOST_NAMESPACE"] = namespace
    os.environ |= {f"MILEPOST_{name.upper()}": str(seconds) for name, seconds in times.items()}
    settings.reload()
    vars(milepost)["InMemoryJobManager"] = lambda: SQLiteJobManager(STORE)
    sys.argv = [program.place, *ARGUMENTS.get(program.place, ())]
    exec(compile(program.code, program.place, "exec"), {"__name__": "__main__"})
    manager = SQLiteJobManager(STORE)
    newest: dict[str, Job] = {}
    for job in manager.list_jobs(limit=1000):
        newest.setdefault(job.job_type, job)
    logs = [
        line["text"]
        for job in newest.values()
        for event in manager.events(job.job_id)
        if event.kind == "log"
        for line in (event.data or {})["lines"]
    ]
    ended = {name: [job.result, _items(job)] for name, job in sorted(newest.items())}
    statuses = {job.status.value for job in newest.values()}
    status = "completed" if statuses == {"completed"} else str(sorted(statuses))
    return {"status": status, "result": ended, "error": None, "items": None, "log": logs}


def _items(job: Job) -> list[Any] | None:
    counts = job.item_counts
    return [counts.done, counts.failed, sorted(counts.failed_keys)] if counts is not None else None
