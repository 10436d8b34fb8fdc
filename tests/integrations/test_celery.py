"""Celery on Redis: the conformance suite, and existing tasks with `@tracked`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from milepost import Jobs
from milepost.core.errors import InvalidInputError, UnknownJobTypeError
from milepost.core.job import Job
from milepost.stores.sync_bridge import run_sync
from milepost.worker.start_forecast import forecast
from tests.integrations.conftest import PATIENCE, Deployment
from tests.integrations.integration_conformance import IntegrationConformance
from tests.redis_server import RedisServer
from tests.waiting import until

pytestmark = [pytest.mark.timing, pytest.mark.usefixtures("celery_signals")]

pytest.importorskip("celery")

CELERY = (
    "-m", "celery", "-A", "tests.integrations.celery_app", "worker", "--concurrency={concurrency}", "--loglevel=INFO",
    "--without-gossip", "--without-mingle",
)  # fmt: skip


@pytest.fixture
def deployment(make_deployment: Callable[..., Deployment], broker: RedisServer) -> Deployment:
    """Celery on a private broker, with prefork workers."""
    made = make_deployment("tests.integrations.celery_app", CELERY, broker.url)
    made.environment["TEST_RESULTS"] = broker.url
    return made


def described(jobs: Jobs, job_id: str) -> Job:
    """Return a job with what it waits for, as pages and the command line show it."""
    job = jobs.get_job(job_id)
    assert job is not None
    known = run_sync(forecast(jobs.store, [job]))
    return job if known is None else known.describe(job)


class TestConformance(IntegrationConformance):
    """The prefork pool can terminate a child process."""

    stops_unresponsive_code = "terminated (Celery revoke, SIGTERM)"


class TestTracked:
    """`@tracked` above `@app.task`."""

    @pytest.mark.parametrize("zone", [None, UTC])
    def test_delayed_task_is_recorded_when_sent(self, deployment: Deployment, zone: Any) -> None:
        start = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
        deployment.start()
        until(deployment.jobs.workers)
        result = deployment.app.embed.apply_async(
            (20,), eta=start if zone is UTC else start.astimezone().replace(tzinfo=None)
        )
        job = described(deployment.jobs, result.id)
        assert job.status == "pending"
        assert job.activity == f"Starts {start.day} {start:%b %H:%M:%S} UTC", "and when it starts"
        assert job.expected_start is None

    def test_delayed_retry_says_when_it_starts(self, deployment: Deployment) -> None:
        deployment.start()
        result = deployment.app.later.delay()
        until(lambda: described(deployment.jobs, result.id).attempts)
        until(lambda: described(deployment.jobs, result.id).status == "pending")
        job = described(deployment.jobs, result.id)
        assert job.activity.startswith("Next attempt ")
        assert job.waiting_for is not None
        at = datetime.fromisoformat(job.waiting_for.params["at"])
        assert timedelta(minutes=59) < at - datetime.now(UTC) < timedelta(minutes=61)

    def test_existing_task_has_record_progress_and_result(self, deployment: Deployment) -> None:
        result = deployment.app.embed.delay(20)
        job = deployment.jobs.get_job(result.id)
        assert job is not None, "it is recorded when it is sent, under the task's own id"
        assert (job.status, job.job_type, job.params) == ("pending", "shop.embed", {"args": [20], "kwargs": {}})
        deployment.start()
        job = deployment.ended(result.id)
        assert (job.status, job.result, job.progress) == ("completed", 20, 1.0)
        assert result.get(timeout=PATIENCE) == 20, "and Celery has its result as ever"
        assert deployment.lines() == [f"embed {result.id}"]

    def test_failed_task_fails_in_celery_and_milepost(self, deployment: Deployment) -> None:
        deployment.start()
        result = deployment.app.broken.delay()
        job = deployment.ended(result.id)
        assert job.failure is not None
        assert (job.status, job.error, job.failure.type) == ("failed", "no such shop", "ValueError")
        assert 'raise ValueError("no such shop")' in (job.failure.traceback or "")
        with pytest.raises(ValueError, match="no such shop"):
            result.get(timeout=PATIENCE)

    def test_retries_of_tracked_task_are_celerys(self, deployment: Deployment) -> None:
        deployment.start()
        result = deployment.app.flaky.delay()
        assert result.get(timeout=PATIENCE) == "at last"
        job = deployment.ended(result.id)
        assert (job.status, job.attempt, job.result) == ("completed", 3, "at last")
        assert deployment.lines() == ["flaky 1", "flaky 2", "flaky 3"]

    def test_cancel_stops_task_and_ends_celery_result(self, deployment: Deployment) -> None:
        from celery.exceptions import TaskRevokedError

        deployment.environment["MILEPOST_GRACE"] = "60"  # within which code has stopped before it is ended by force
        deployment.start()
        result = deployment.app.embed.delay(100_000)
        deployment.wait_for_lines("embed")
        deployment.jobs.cancel_job(result.id)
        job = deployment.confirmed(result.id)
        assert job.receipt is not None
        assert (job.status, job.receipt.how) == ("cancelled", "cooperative")
        with pytest.raises(TaskRevokedError):
            result.get(timeout=PATIENCE)

    def test_celery_revoke_cancels_job(self, deployment: Deployment) -> None:
        deployment.start()
        result = deployment.app.long.delay(600)
        deployment.wait_for_lines("tracked")
        deployment.app.app.control.revoke(result.id, terminate=True, signal="SIGKILL")
        job = deployment.confirmed(result.id)
        assert job.receipt is not None
        assert (job.status, job.receipt.requested_by) == ("cancelled", "celery")
        assert job.receipt.how == "terminated (Celery revoke, SIGKILL)"

    def test_task_survives_worker_kill(self, deployment: Deployment) -> None:
        """The task acknowledges late; Celery alone would wait for its visibility timeout of one hour."""
        worker = deployment.start()
        result = deployment.app.embed.delay(60, 0.15)
        deployment.wait_for_lines("embed")
        job_id = result.id
        deployment.until(
            lambda: (job := deployment.jobs.get_job(job_id)) is not None and job.progress > 0.05, "it has begun"
        )
        deployment.kill(worker)
        deployment.start()
        job = deployment.ended(job_id)
        assert (job.status, job.result, job.crashes) == ("completed", 60, 1)
        assert result.get(timeout=PATIENCE) == 60
        assert deployment.lines() == [f"embed {job_id}"] * 2

    def test_unrecorded_message_is_recorded_on_arrival(self, deployment: Deployment) -> None:
        """Its sender uses only Celery and the task name."""
        import celery

        deployment.start()
        sender = celery.Celery(broker=deployment.environment["TEST_BROKER"], set_as_current=False)
        task_id = sender.send_task("shop.embed", (3,)).id
        deployment.wait_for_lines("embed")
        job = deployment.ended(task_id)
        assert (job.status, job.result, job.params) == ("completed", 3, {"args": [3], "kwargs": {}})

    def test_tracked_type_is_published_and_submittable(self, deployment: Deployment) -> None:
        deployment.start()

        def is_published() -> bool:
            try:
                return bool(deployment.jobs.job_type("shop.embed"))
            except UnknownJobTypeError:
                return False

        deployment.until(is_published, "a worker publishes its types")
        deployment.until(deployment.jobs.workers, "a worker says what it has")
        (worker,) = deployment.jobs.workers()
        assert "shop.embed" in worker.types
        known = deployment.jobs.job_type("shop.embed")
        assert (known.task_queue, known.doc) == ("celery", "Report progress.")
        job = deployment.jobs.submit("shop.embed", {"args": [3], "kwargs": {"pause": 0}})
        assert deployment.ended(job.job_id).result == 3
        with pytest.raises(InvalidInputError, match="pages"):
            deployment.jobs.submit("shop.embed", {"pages": 3})

    def test_tracked_task_is_still_callable(self, deployment: Deployment) -> None:
        assert deployment.app.embed(3, 0) == 3
        assert deployment.jobs.list_jobs() == []

    def test_tracked_rejects_non_task(self, deployment: Deployment) -> None:
        with pytest.raises(InvalidInputError, match="above @app"):
            deployment.app.tracked(jobs=deployment.jobs)(len)


def visibility(
    make_deployment: Callable[..., Deployment], broker: RedisServer, timeout: float, seconds: float
) -> tuple[int, int]:
    """Return how often a task of `seconds` starts under a visibility timeout: untracked, and tracked."""
    deployment = make_deployment("tests.integrations.celery_app", CELERY, broker.url)
    deployment.environment["TEST_VISIBILITY"] = str(timeout)
    deployment.start(4)
    deployment.start(4)
    bare = deployment.app.bare_long.delay(seconds)
    tracked = deployment.app.long.delay(seconds)
    job = deployment.ended(tracked.id, PATIENCE + seconds)
    assert (job.status, job.attempt, job.result) == ("completed", 1, seconds)
    deployment.wait_for_lines("bare", 2)
    assert bare.id
    lines = deployment.lines()
    return sum(line.startswith("bare") for line in lines), sum(line.startswith("tracked") for line in lines)


def test_visibility_timeout_does_not_rerun_tracked_task(
    make_deployment: Callable[..., Deployment], broker: RedisServer
) -> None:
    """Scaled down; `make test-slow` uses realistic durations."""
    bare, tracked = visibility(make_deployment, broker, 2, 8)
    assert bare >= 2
    assert tracked == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_visibility_timeout_10_s_with_60_s_task(
    make_deployment: Callable[..., Deployment], broker: RedisServer
) -> None:
    bare, tracked = visibility(make_deployment, broker, 10, 60)
    assert bare >= 3
    assert tracked == 1


@pytest.mark.parametrize("first", ["", "1"])
def test_jobs_run_beside_tracked_tasks_that_name_no_jobs(
    make_deployment: Callable[..., Deployment], broker: RedisServer, first: str
) -> None:
    """Regression: submitted jobs, those of the tracked task or all, waited for a handler."""
    module = "tests.integrations.celery_mixed_app"
    deployment = make_deployment(module, [word.replace(CELERY[3], module) for word in CELERY], broker.url)
    deployment.environment["TEST_JOBS_FIRST"] = first
    deployment.start()
    submitted = [
        until(lambda: submit_published(deployment.jobs, "shop.embed", {"args": [1]})),
        *(deployment.jobs.submit(deployment.app.count, number=number) for number in (2, 3)),
    ]
    sent = deployment.app.embed.delay(4)
    assert [deployment.ended(job_id).result for job_id in (*(job.job_id for job in submitted), sent.id)] == [1, 2, 3, 4]
    (worker,) = deployment.jobs.workers()
    assert set(worker.types) == {"shop.embed", "count"}, "each Jobs replaced the types of the other"


def submit_published(jobs: Jobs, job_type: str, params: dict[str, Any]) -> Job | None:
    """Submit a job by name, or return None while no worker has published its type."""
    try:
        return jobs.submit(job_type, params)
    except UnknownJobTypeError:
        return None
