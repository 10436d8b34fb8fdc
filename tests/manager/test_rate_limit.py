"""The limit on cancels, retries and deletes of one job."""

from __future__ import annotations

import pytest

from milepost import InMemoryJobManager, TooManyRequestsError


def test_too_many_requests_for_one_job_raise_with_retry_after() -> None:
    manager = InMemoryJobManager()
    job_id = manager.enqueue("t").job_id
    for _ in range(32):
        manager.cancel_job(job_id)
        manager.retry_job(job_id)
    for request in (manager.cancel_job, manager.delete_job):
        with pytest.raises(TooManyRequestsError, match=r"changed 64 times within 60 s; try again in \d+ s") as refused:
            request(job_id)
        assert 0 < refused.value.retry_after <= 60
    job = manager.get_job(job_id)
    assert job is not None
    assert job.status == "pending"
