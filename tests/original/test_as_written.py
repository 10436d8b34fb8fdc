"""The unit tests of the original design, as written there; only the import is changed."""

import pytest

from milepost import InMemoryJobManager, JobStatus


@pytest.fixture
def manager():
    return InMemoryJobManager()

def test_create_job(manager):
    job = manager.create_job(job_type="test")
    
    assert job.job_id
    assert job.status == JobStatus.PENDING
    assert job.progress == 0.0

def test_update_job(manager):
    job = manager.create_job(job_type="test")
    
    manager.update_job(
        job.job_id,
        status=JobStatus.RUNNING,
        progress=0.5,
        message="In progress"
    )
    
    updated = manager.get_job(job.job_id)
    assert updated.status == JobStatus.RUNNING
    assert updated.progress == 0.5
    assert updated.message == "In progress"

def test_list_jobs(manager):
    manager.create_job(job_type="ingestion")
    manager.create_job(job_type="extraction")
    manager.create_job(job_type="ingestion")
    
    all_jobs = manager.list_jobs()
    assert len(all_jobs) == 3
    
    ingestion_jobs = manager.list_jobs(job_type="ingestion")
    assert len(ingestion_jobs) == 2
