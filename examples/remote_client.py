"""A script that uses the jobs of a server; start `milepost serve` first."""

from __future__ import annotations

import sys

from milepost import Client, JobStatus


def main(url: str = "http://127.0.0.1:8321") -> None:
    """Update a job on a server, and read its events."""
    with Client(url) as client:
        job = client.create_job(job_type="remote", metadata={"title": "From afar"})
        client.update_job(job.job_id, status=JobStatus.RUNNING)
        for step in range(1, 5):
            client.update_job(job.job_id, progress=step / 4, message=f"Step {step} of 4")
        client.update_job(job.job_id, status=JobStatus.COMPLETED, result={"steps": 4})
        print([event.kind for event in client.watch(job.job_id, after=0)])


if __name__ == "__main__":
    main(*sys.argv[1:2])
