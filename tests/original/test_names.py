"""Every name, default and text of the original design, on the managers that can be made here."""

import dataclasses
import inspect
import json
import os
import threading
from datetime import UTC, datetime

import pytest

from milepost import InMemoryJobManager, Job, JobManager, JobStatus, RedisJobManager, SQLiteJobManager, get_job_manager
from milepost.manager import sync
from milepost.settings import Settings, settings

ELEVEN = [
    "job_id",
    "job_type",
    "status",
    "progress",
    "message",
    "created_at",
    "started_at",
    "completed_at",
    "error",
    "result",
    "metadata",
]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def manager(request, sqlite_url):
    if request.param == "memory":
        yield InMemoryJobManager()
        return
    if request.param == "sqlite":
        made = SQLiteJobManager(sqlite_url)
    else:
        options = Settings(namespace=request.getfixturevalue("redis_namespace"))
        made = RedisJobManager(request.getfixturevalue("redis_url"), options=options)
    yield made
    made.close()


pytestmark = pytest.mark.service("redis-server")


def test_the_five_statuses_are_their_values():
    assert [status.value for status in JobStatus] == ["pending", "running", "completed", "failed", "cancelled"]
    assert isinstance(JobStatus.PENDING, str)
    assert json.dumps(JobStatus.RUNNING) == '"running"'
    assert f"Cannot cancel job with status {JobStatus.COMPLETED}" == "Cannot cancel job with status completed"


def test_a_job_can_be_built_with_the_eleven_fields_alone():
    now = datetime.now(UTC)
    job = Job("a", "test", JobStatus.PENDING, 0.0, "Job created", now, None, None, None, None, {"k": 1})
    assert [field.name for field in dataclasses.fields(job)][:11] == ELEVEN
    assert Job("a", "test", JobStatus.PENDING, 0.0, "Job created", now).started_at is None


def test_to_dict_has_the_eleven_fields_first(manager):
    data = manager.create_job(metadata={"k": [1, None]}).to_dict()
    assert list(data)[:11] == ELEVEN
    assert datetime.fromisoformat(data["created_at"]).utcoffset().total_seconds() == 0
    assert data["created_at"].endswith("+00:00")
    assert (data["started_at"], data["error"], data["result"]) == (None, None, None)
    json.dumps(data)


def test_create_job_defaults(manager):
    job = manager.create_job()
    assert (job.job_type, job.status, job.progress, job.message) == ("generic", "pending", 0.0, "Job created")
    assert job.metadata == {}
    assert manager.create_job("an-id", "test", {"k": 1}).metadata == {"k": 1}
    names = list(inspect.signature(JobManager.create_job).parameters)
    assert names[:4] == ["self", "job_id", "job_type", "metadata"]


def test_an_id_is_refused_or_new(manager):
    manager.create_job("taken")
    for job_id in ("", "a b", "../etc", "x" * 129, "taken"):
        with pytest.raises(ValueError, match=r"job_id|taken"):
            manager.create_job(job_id)
    assert [job.job_id for job in manager.list_jobs()] == ["taken"]


def test_get_job_gives_none_for_an_unknown_id(manager):
    assert manager.get_job("nobody") is None
    assert manager.get_job("../etc\x00") is None


def test_update_job_of_an_unknown_id(manager):
    with pytest.raises(ValueError, match=r"^Job nobody not found$"):
        manager.update_job("nobody", progress=0.5)


def test_update_job_stamps_the_times(manager):
    job = manager.create_job()
    manager.update_job(job.job_id, status=JobStatus.RUNNING)
    started = manager.get_job(job.job_id).started_at
    manager.update_job(job.job_id, status=JobStatus.RUNNING, progress=2.0)
    again = manager.get_job(job.job_id)
    assert (again.started_at, again.progress, again.completed_at) == (started, 1.0, None)
    manager.update_job(job.job_id, status="failed", error="boom")
    ended = manager.get_job(job.job_id)
    assert ended.created_at <= ended.started_at <= ended.completed_at
    assert ended.error == "boom"


@pytest.mark.parametrize("empty", [{}, [], 0, "", False])
def test_empty_results_are_kept(manager, empty):
    job = manager.create_job()
    manager.update_job(job.job_id, status="completed", result=empty)
    assert manager.get_job(job.job_id).result == empty


def test_empty_texts_are_kept(manager):
    job = manager.create_job()
    manager.update_job(job.job_id, JobStatus.RUNNING, 0.5, "Loading", "a warning", {"n": 1})
    manager.update_job(job.job_id, progress=0.6)
    kept = manager.get_job(job.job_id)
    assert (kept.progress, kept.message, kept.error, kept.result) == (0.6, "Loading", "a warning", {"n": 1})
    manager.update_job(job.job_id, message="", error="")
    emptied = manager.get_job(job.job_id)
    assert (emptied.message, emptied.error) == ("", "")


def test_list_jobs_takes_what_it_took(manager):
    job = manager.create_job(job_type="a")
    for given in ({}, {"job_type": ""}, {"status": None}, {"status": "pending"}, {"limit": 1_000_000}):
        assert [found.job_id for found in manager.list_jobs(**given)] == [job.job_id]
    for wrong in ({"limit": 0}, {"limit": "many"}, {"status": "done"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            manager.list_jobs(**wrong)


def test_list_jobs_filters_before_the_limit_newest_first(manager):
    ids = [manager.create_job(job_type="a" if i % 2 else "b").job_id for i in range(10)]
    manager.update_job(ids[0], status="running")
    assert [job.job_id for job in manager.list_jobs()] == ids[::-1]
    assert [job.job_id for job in manager.list_jobs(status=JobStatus.RUNNING, limit=1)] == ids[:1]
    assert [job.job_id for job in manager.list_jobs("a", limit=2)] == [ids[9], ids[7]]
    assert inspect.signature(JobManager.list_jobs).parameters["limit"].default == 100


def test_delete_job_is_silent_when_it_is_gone(manager):
    job = manager.create_job()
    manager.delete_job(job.job_id)
    manager.delete_job(job.job_id)
    assert manager.get_job(job.job_id) is None
    assert manager.list_jobs() == []


def test_cancel_through_update_is_final(manager):
    job = manager.create_job()
    manager.update_job(job.job_id, status=JobStatus.CANCELLED, message="Job cancelled by user")
    with pytest.raises(ValueError, match="status cancelled") as refused:
        manager.update_job(job.job_id, status=JobStatus.COMPLETED, result={"late": True})
    assert refused.value.job.status == "cancelled"
    assert manager.get_job(job.job_id).message == "Job cancelled by user"
    assert manager.cancel_job(manager.create_job().job_id).message == "Job cancelled by user"


def test_every_manager_is_a_job_manager(manager):
    assert isinstance(manager, JobManager)


def test_a_manager_is_made_from_a_store():
    with pytest.raises(TypeError, match="store"):
        JobManager()
    assert JobManager(InMemoryJobManager().store).create_job().status is JobStatus.PENDING


def test_the_jobs_of_the_memory_manager_are_a_read_only_view():
    manager = InMemoryJobManager()
    job = manager.create_job()
    assert list(manager.jobs) == [job.job_id]
    assert manager.jobs[job.job_id] == job
    with pytest.raises(TypeError):
        manager.jobs["x"] = job


@pytest.fixture
def fresh(monkeypatch):
    """Run a process in which nothing was read and no manager was made yet."""
    for name in ("MILEPOST_URL", "REDIS_URL", "JOB_TTL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sync, "_manager", None)
    settings.reload()
    yield monkeypatch
    settings.reload()


def test_the_redis_manager_obeys_job_ttl(fresh, redis_url):
    assert inspect.signature(RedisJobManager).parameters["redis_url"].default == "redis://localhost:6379/0"
    assert RedisJobManager(redis_url).ttl == 604800
    fresh.setenv("JOB_TTL", "3600")
    settings.reload()
    assert RedisJobManager(redis_url).ttl == 3600


def test_settings_are_read_at_first_use(fresh):
    fresh.setenv("REDIS_URL", "redis://elsewhere:6379/0")
    fresh.setenv("JOB_TTL", "60")
    assert (settings.redis_url, settings.job_ttl) == ("redis://elsewhere:6379/0", 60)


@pytest.mark.parametrize("there_is_redis", [True, False])
def test_settings_choose_the_manager_as_written(fresh, redis_url, there_is_redis):
    if there_is_redis:
        fresh.setenv("REDIS_URL", redis_url)
    # Check Redis availability
    if settings.redis_url:  # noqa: SIM108 - as it was written
        manager = RedisJobManager(settings.redis_url)
    else:
        manager = InMemoryJobManager()
    assert isinstance(manager, RedisJobManager if there_is_redis else InMemoryJobManager)
    manager.close()


def test_get_job_manager_is_one_object(fresh, redis_url):
    found: list[JobManager] = []
    threads = [threading.Thread(target=lambda: found.append(get_job_manager())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(manager) for manager in found}) == 1
    assert isinstance(found[0], InMemoryJobManager)
    fresh.setattr(sync, "_manager", None)
    fresh.setenv("REDIS_URL", redis_url)
    settings.reload()
    assert isinstance(get_job_manager(), RedisJobManager)


def test_get_job_manager_works_after_a_fork(fresh, sqlite_url):
    fresh.setenv("MILEPOST_URL", sqlite_url)
    job = get_job_manager().create_job()
    pid = os.fork()
    if pid == 0:
        try:
            get_job_manager().update_job(job.job_id, status="completed", result={"by": "child"})
            os._exit(0)
        except BaseException:  # the child must end here, whatever happens
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert get_job_manager().get_job(job.job_id).result == {"by": "child"}
