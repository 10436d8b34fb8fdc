"""A nightly job: a schedule declared beside its handler. It waits for late entries without a worker.

Start it in this folder, as many times as you like: each tick makes one job, whichever workers live::

    MILEPOST_URL=sqlite:///jobs.db milepost worker nightly_schedule:jobs
    MILEPOST_URL=sqlite:///jobs.db milepost schedule
"""

from __future__ import annotations

import os
from pathlib import Path

from milepost import Jobs, Run

jobs = Jobs()
FOLDER = Path(os.environ.get("REPORTS", "reports"))


@jobs.job("report", max_attempts=3)
def report(run: Run, name: str, wait: str = "30m") -> str:
    """Write the report of one tick. A tick whose worker is killed runs again, and writes the same file."""
    assert run.scheduled_at is not None
    run.sleep("late entries", wait)
    path = FOLDER / f"{name}-{run.scheduled_at:%Y%m%dT%H%M%SZ}.txt"
    FOLDER.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{name} as of {run.scheduled_at}\n")
    return str(path)


jobs.schedule("nightly-report", report, cron="0 3 * * *", tz="Europe/Berlin", params={"name": "sales"})
if "EVERY" in os.environ:  # for a try: EVERY=2s
    jobs.schedule(
        "frequent-report", report, every=os.environ["EVERY"], catch_up="all", params={"name": "sales", "wait": "0s"}
    )
