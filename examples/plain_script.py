"""A loop that becomes a tracked job: watch it from another terminal with `milepost ls -w`, stop it with `milepost cancel`."""

from __future__ import annotations

import sys
import time

from milepost import get_job_manager

PAGES = [f"page {number}" for number in range(1, 41)]


def main(pause: float = 0.05) -> None:
    """Process the pages."""
    manager = get_job_manager()  # MILEPOST_URL=sqlite:///jobs.db shares the jobs with other processes
    with manager.track("reading", metadata={"title": "Forty pages"}) as run:
        for page in run.each(PAGES):
            time.sleep(pause)
            run.progress(message=f"Read {page}")
        run.result = {"pages": len(PAGES)}
    job = manager.get_job(run.job_id)
    assert job is not None
    print(f"{job.job_id}: {job.status}, {job.result}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.05)
