"""The values of Secret parameters are in no response, not even in the result of the handler."""

from __future__ import annotations

import pytest

from milepost import Jobs, Run, Secret
from tests.waiting import PATIENCE
from tests.worker.conftest import MakeJobs


@pytest.fixture
def jobs(make_jobs: MakeJobs) -> Jobs:
    jobs = make_jobs()

    @jobs.job("echo")
    def echo(run: Run, token: Secret) -> object:
        return {"text": f"result {token}", "parts": [1, None, token, {token: True}], "number": 123456}

    return jobs


@pytest.mark.timing
@pytest.mark.parametrize("token", ["hunter2-and-more", 'quo"te\\d', "123456", "true", "ünïcode"])
def test_result_masks_secret(jobs: Jobs, token: str) -> None:
    """Regression: a handler that returned its Secret parameter showed it to everyone who may read the job."""
    job = jobs.submit("echo", {"token": token})
    with jobs.run_workers():
        ended = jobs.wait(job.job_id, PATIENCE)
    assert ended.result == {"text": "result ***", "parts": [1, None, "***", {"***": True}], "number": 123456}
    assert ended.params == {"token": "***"}


@pytest.mark.timing
def test_result_without_secret_is_unchanged(jobs: Jobs) -> None:
    job = jobs.submit("echo", {"token": "ab"})  # too short to be looked for
    with jobs.run_workers():
        assert jobs.wait(job.job_id, PATIENCE).result["text"] == "result ab"
