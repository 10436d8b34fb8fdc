"""A retry from the start, by Python, over HTTP and on the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from milepost import InvalidInputError, Jobs, Run
from milepost.web import attach, auth


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    """Yield an application with a handler that fails once in the middle of a loop that resumes."""
    jobs = Jobs(f"sqlite:///{tmp_path / 'jobs.db'}")

    @jobs.job("load", max_attempts=1)
    def load(run: Run) -> list[int]:
        done = []
        for number in run.each(range(5), resume=True):
            if number == 3 and run.attempt == 1:
                raise ConnectionError("the database is unavailable")
            done.append(number)
        return done

    yield jobs
    jobs.close()


@pytest.mark.timing
@pytest.mark.parametrize(("from_start", "result"), [(False, [3, 4]), (True, [0, 1, 2, 3, 4])])
@pytest.mark.parametrize("way", ["python", "http", "command line"])
def test_retry_continues_unless_it_is_from_the_start(
    jobs: Jobs, way: str, from_start: bool, result: list[int], tmp_path: Path
) -> None:
    with jobs.run_workers():
        job = jobs.wait(jobs.submit("load").job_id, 30)
        assert job.status == "failed"
        if way == "python":
            jobs.retry_job(job.job_id, from_start=from_start)
        elif way == "http":
            app = FastAPI()
            attach(app, jobs, auth=auth.none())
            with TestClient(app, base_url="http://127.0.0.1") as client:
                answer = client.post(f"/api/jobs/{job.job_id}/retry", json={"from_start": from_start})
                assert answer.status_code == 200, answer.text
        else:
            program = "import sys; from milepost.cli import main; sys.exit(main())"
            flags = ["--from-start"] if from_start else []
            words = ["retry", job.job_id, *flags, "--url", f"sqlite:///{tmp_path / 'jobs.db'}"]
            subprocess.run([sys.executable, "-c", program, *words], check=True)
        assert jobs.wait(job.job_id, 30).result == result


def test_from_start_is_refused_together_with_only_failed(jobs: Jobs) -> None:
    job = jobs.submit("load")
    with pytest.raises(InvalidInputError, match="from_start"):
        jobs.retry_job(job.job_id, from_start=True, only_failed=True)
